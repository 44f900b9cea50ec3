"""The Dockerfile of one layer. Pure.

Every RUN step first reads a file of shell assignments that is mounted for the build (`ENVIRONMENT`): secrets and what
the host trusts (certificates, package indexes). So neither is in the image, its history or any process's arguments.
That file is in memory only, and only the build's own processes see it.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from intermodal.builder.instructions import Instruction, exec_form, parse_all
from modal._wire.codec import encode
from modal._wire.messages.image import BuildMethods, PipInstall
from modal.exception import InvalidError

#: Where the build's own files are mounted, read-only.
MOUNT = "/run/intermodal"
#: Where the file system in memory with the variables is mounted.
VARIABLES = "/run/intermodal-variables"
ENVIRONMENT = f"{VARIABLES}/environment.sh"
BUILD_REQUEST = f"{MOUNT}/build.json"
SDK = "/run/intermodal-sdk"  #: holds the package `modal`
VENDOR = "/run/vendor"  #: holds `cloudpickle`, where the SDK looks for it
MODULES = "/run/intermodal-modules"
UV = "/run/intermodal-uv/uv"
UV_CACHE = "/run/intermodal-uv-cache"

_POSIX_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"})
_PREFIX = f". {ENVIRONMENT}; "
DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile, and for each of its steps after FROM what people see of it."""

    text: str
    titles: tuple[str, ...]


def commands(parent: str, layer_commands: Sequence[str], shell: Sequence[str] = DEFAULT_SHELL) -> Recipe:
    """The recipe of a COMMANDS layer.

    Args:
        parent: reference of the image below.
        layer_commands: instructions as the client sent them.
        shell: the SHELL in force in the parent.

    Raises:
        InvalidError: an instruction is refused.
    """
    lines = [f"FROM {parent}"]
    instructions = parse_all(layer_commands)
    for instruction in instructions:
        if instruction.word == "SHELL":
            shell = exec_form(instruction.rest) or shell
        lines.append(_run(instruction, shell) if instruction.word == "RUN" else instruction.text)
    return Recipe("\n".join(lines) + "\n", tuple(instruction.text for instruction in instructions))


def pip_install(parent: str, pip: PipInstall) -> Recipe:
    """The recipe of a PIP_INSTALL layer: uv, or pip when options for pip are given."""
    run = json.dumps(["/bin/sh", "-c", _PREFIX + pip_command(pip)])
    return Recipe(f"FROM {parent}\nRUN {run}\n", (pip_title(pip),))


def build_methods(parent: str, build: BuildMethods) -> Recipe:
    """The recipe of a BUILD_METHODS layer: the SDK, the modules and the request are mounted for the step.

    The identity is there for buildah, which takes a step from its cache when the command is the same.
    """
    command = f"{_PREFIX}exec python {SDK}/modal/_container/build_hooks.py {BUILD_REQUEST} {build.identity}"
    run = json.dumps(["/bin/sh", "-c", command])
    title = "build " + ", ".join(f"{build.name}.{method}" for method in build.methods)
    return Recipe(f"FROM {parent}\nRUN {run}\n", (title,))


def build_request(build: BuildMethods) -> str:
    """What the step is told, as JSON."""
    source = encode(build.source)
    if build.source.path:
        source["path"] = f"{MODULES}/{posixpath.basename(build.source.path)}"
    body = f"{MODULES}/{build.body}" if build.body else ""
    return json.dumps({"name": build.name, "source": source, "methods": build.methods, "root": MODULES, "body": body})


def pip_command(pip: PipInstall) -> str:
    """The shell command that installs, each value quoted."""
    if pip.extra_options.strip():
        words = ["python", "-m", "pip", "install", "--no-cache-dir", "--root-user-action=ignore"]
    else:
        words = [UV, "pip", "install", "--system", "--break-system-packages"]
        words += ["--link-mode", "copy", "--compile-bytecode", "--cache-dir", UV_CACHE]
    words += _pip_options(pip)
    if pip.extra_options.strip():
        words += _split_options(pip.extra_options)
    if pip.packages:
        words += ["--", *pip.packages]
    return " ".join(shlex.quote(word) for word in words)


def pip_title(pip: PipInstall) -> str:
    """What a pip_install layer is called in the build log."""
    return " ".join(["pip install", *pip.packages, pip.extra_options]).strip()


def _pip_options(pip: PipInstall) -> list[str]:
    options: list[str] = []
    if pip.index_url is not None:
        options += ["--index-url", pip.index_url]
    if pip.extra_index_url is not None:
        options += ["--extra-index-url", pip.extra_index_url]
    if pip.find_links is not None:
        options += ["--find-links", pip.find_links]
    if pip.pre:
        options += ["--pre"]
    return options


def _split_options(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidError(f"pip_install could not read extra_options {text!r}: {error}.") from None


def _run(instruction: Instruction, shell: Sequence[str]) -> str:
    """A RUN step that reads the environment file first; as it is when its shell cannot."""
    flags, command = instruction.split_flags()
    head = f"RUN {flags} " if flags else "RUN "
    words = exec_form(command)
    if words is not None:
        return head + json.dumps(["/bin/sh", "-c", f'{_PREFIX}exec "$@"', "sh", *words])
    if not any(posixpath.basename(word) in _POSIX_SHELLS for word in shell):
        return head + command
    return head + _PREFIX + command
