"""Commands of the reference that this version does not have yet.

They exist with their arguments and options, so that `--help` tells what is to come and a script fails with a clear
sentence instead of a usage error. A command moves from this table to a module of its own when it works.
"""

from __future__ import annotations

from typing import Any

import click

from .errors import not_available
from .lazy import LazyGroup

GROUPS = {
    "launch": "Start a notebook or an editor in a container.",
}

#: command -> (what it does, its arguments and options). `<x>` is a required argument, `[x]` an optional one, `...`
#: after it repeats it; `--x=` takes a value.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("Run an app's web endpoints while its code changes.", "<app_ref> --timeout= -e/--env= -m"),
    "shell": (
        "Open a shell or run a command in a container.",
        "[container_or_function] -c/--cmd= -e/--env= --image= --add-python= --volume= --cpu= --memory= --gpu= "
        "--cloud= --region= --pty/--no-pty",
    ),
    "launch jupyter": (
        "Start Jupyter in a container.",
        "--cpu= --memory= --gpu= --timeout= --image= --add-python= --mount= --volume= --detach/--no-detach",
    ),
    "launch vscode": (
        "Start Visual Studio Code in a container.",
        "--cpu= --memory= --gpu= --image= --timeout= --mount= --volume= --detach/--no-detach",
    ),
}

OPTION_HELP = {
    "--activate": "Make the profile the active one.",
    "--add-python": "Python version to add to the image.",
    "--all": "Take all of them.",
    "--cloud": "Cloud to run in.",
    "--cmd": "Command to run instead of a shell.",
    "--cpu": "Cores to request.",
    "--detach": "Let it go on when this client stops.",
    "--env": "Environment; the one of the active profile by default.",
    "--force": "Overwrite what is there.",
    "--gpu": "GPU to request, as in A100:2.",
    "--image": "Image of a registry to use.",
    "--json": "Print JSON for programs instead of a table.",
    "--memory": "MiB of memory to request.",
    "--mount": "Local directory to send along.",
    "--name": "Name of the app.",
    "--partition": "Partition of the queue.",
    "--pty": "Run the command in a terminal.",
    "--recursive": "Delete directories with what is in them.",
    "--region": "Region to run in.",
    "--repr": "Show keys and values as Python writes them.",
    "--stream-logs": "Show the app's logs after it is deployed.",
    "--tag": "Mark this deployment with a version tag.",
    "--timeout": "Seconds after which it ends.",
    "--total": "Count the items of all partitions.",
    "--version": "Version of the volume's file system.",
    "--volume": "Volume to attach.",
    "--yes": "Do not ask.",
    "-m": "The reference names a module, not a file.",
}


def later_command(name: str) -> click.Command:
    """Return the top-level command or group `name`."""
    return group(name) if name in GROUPS else _command(name)


def group(name: str) -> LazyGroup:
    """Return the group `name` with its commands of this table; a module that has some of them adds its own."""
    members = [command for command in COMMANDS if command.startswith(f"{name} ")]
    return LazyGroup(
        name, help=GROUPS[name], commands={member.partition(" ")[2]: _command(member) for member in members}
    )


def _command(path: str) -> click.Command:
    text, usage = COMMANDS[path]

    def refuse(**given: Any) -> None:
        not_available(path)

    return click.Command(
        path.rpartition(" ")[2],
        callback=refuse,
        params=[_parameter(word) for word in usage.split()],
        help=f"{text}\n\nNot available in this version of Intermodal.",
        short_help=f"{text} (not available yet)",
    )


def _parameter(word: str) -> click.Parameter:
    if not word.startswith("-"):
        return click.Argument(
            [word.strip("<>[].").lower()], required=word.startswith("<"), nargs=-1 if word.endswith("...") else 1
        )
    takes_value = word.endswith("=")
    names = word.rstrip("=").split("/")
    if len(names) == 2 and names[1].startswith("--no-"):
        return click.Option([word], help=OPTION_HELP[names[0]])
    if names == ["-m"]:
        names.append("is_module")
    return click.Option(names, is_flag=not takes_value, help=OPTION_HELP[names[0] if names[0] == "-m" else names[-1]])
