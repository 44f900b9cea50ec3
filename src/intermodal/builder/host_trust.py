"""What the host trusts, handed to build steps and never to images: certificates, package indexes, apt's mirror.

The files made here are mounted into RUN steps at `dockerfile.MOUNT`; the variables point programs at them.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from intermodal.builder.dockerfile import MOUNT

_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
#: Variables by which programs find a certificate bundle.
_CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
#: pip settings that matter to where packages come from; the rest is about the host.
_PIP_URLS = ("index-url", "extra-index-url", "find-links")
_PIP_OTHER = ("trusted-host", "timeout", "retries", "proxy")
_UV_URLS = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_APT_PREFIXES = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")


@dataclass(frozen=True)
class HostTrust:
    """Settings of this machine that builds inherit."""

    ca_bundle: Path | None = None
    pip: Mapping[str, str] = field(default_factory=dict)  #: long option name to value; several values are lines
    uv_env: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    apt: tuple[str, ...] = ()  #: lines of apt.conf

    def write(self, directory: Path) -> None:
        """Write the files that RUN steps see at `dockerfile.MOUNT`."""
        if self.ca_bundle is not None:
            (directory / "ca.crt").write_bytes(self.ca_bundle.read_bytes())
            (directory / "wgetrc").write_text(f"ca_certificate = {MOUNT}/ca.crt\n")
        (directory / "pip.conf").write_text(pip_conf(self.pip))
        (directory / "uv.toml").write_text(uv_toml(self.pip))
        apt = [f'Acquire::https::CAInfo "{MOUNT}/ca.crt";'] if self.ca_bundle is not None else []
        (directory / "apt.conf").write_text("".join(f"{line}\n" for line in [*self.apt, *apt]))
        for path in directory.iterdir():
            path.chmod(0o444)
        directory.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Variables that point programs in the build at the mounted files."""
        variables = {"PIP_CONFIG_FILE": f"{MOUNT}/pip.conf", "UV_CONFIG_FILE": f"{MOUNT}/uv.toml"}
        variables.update({"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"})
        if self.ca_bundle is not None:
            variables.update(dict.fromkeys(_CA_VARIABLES, f"{MOUNT}/ca.crt"))
            variables["WGETRC"] = f"{MOUNT}/wgetrc"
        variables["APT_CONFIG"] = f"{MOUNT}/apt.conf"
        variables["DEBIAN_FRONTEND"] = "noninteractive"
        return {**variables, **self.uv_env, **self.proxies}


def pip_conf(settings: Mapping[str, str]) -> str:
    """A pip configuration file."""
    lines = ["[global]"]
    for name, value in settings.items():
        lines.append(f"{name} = " + "\n    ".join(value.split()))
    return "\n".join(lines) + "\n"


def uv_toml(settings: Mapping[str, str]) -> str:
    """The same index settings for uv."""
    lines = []
    if "index-url" in settings:
        lines.append(f"index-url = {json.dumps(settings['index-url'])}")
    for name in ("extra-index-url", "find-links"):
        if name in settings:
            lines.append(f"{name} = {json.dumps(settings[name].split())}")
    if "trusted-host" in settings:
        lines.append(f"allow-insecure-host = {json.dumps(settings['trusted-host'].split())}")
    return "".join(f"{line}\n" for line in lines)


def shell_exports(variables: Mapping[str, str]) -> str:
    """Assignments for a POSIX shell; names that a shell cannot assign are left out."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items() if _is_name(name)]
    return "".join(lines)


def merge_pip(listing: Iterable[str]) -> dict[str, str]:
    """Merge the lines of ``pip config list``: the environment overrides files; local paths are dropped."""
    merged: dict[str, str] = {}
    for line in sorted(listing, key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        if not separator:
            continue
        section, _, name = key.rpartition(".")
        if section not in ("global", "install", ":env:"):
            continue
        text = _unquote(value)
        name = {"default-timeout": "timeout"}.get(name, name)
        if name in _PIP_URLS or name in _PIP_OTHER:
            merged[name] = text
    urls = {name: remote_urls(merged[name]) for name in _PIP_URLS if name in merged}
    merged = {name: urls.get(name, value) for name, value in merged.items()}
    return {name: value for name, value in merged.items() if value}


def remote_urls(text: str) -> str:
    """The words of `text` that are reachable from inside a build: URLs that are no files of the host."""
    return " ".join(word for word in text.split() if urlsplit(word).scheme not in ("", "file"))


def gather(environ: Mapping[str, str], pip_argv: tuple[str, ...] | None) -> HostTrust:
    """Ask this machine. Takes a fraction of a second; blocking.

    Args:
        environ: the server's environment.
        pip_argv: how to run pip, e.g. ``("python3", "-m", "pip")``; None when there is none.
    """
    bundle = next(
        (Path(path) for path in (environ.get("SSL_CERT_FILE", ""), *_BUNDLES) if path and Path(path).is_file()), None
    )
    listing = _output([*pip_argv, "config", "list"]).splitlines() if pip_argv else []
    uv_env = {name: remote_urls(environ[name]) for name in _UV_URLS if name in environ}
    proxies = {name: environ[name] for base in _PROXY_VARIABLES for name in (base, base.upper()) if environ.get(name)}
    return HostTrust(
        ca_bundle=bundle,
        pip=merge_pip(listing),
        uv_env={name: value for name, value in uv_env.items() if value},
        proxies=proxies,
        apt=tuple(apt_settings(_output(["apt-config", "dump"]).splitlines())),
    )


def apt_settings(dump: Iterable[str]) -> list[str]:
    """The lines of ``apt-config dump`` about how archives are reached."""
    return [
        line
        for line in dump
        if line.startswith(_APT_PREFIXES) and not line.endswith('"";') and "Auto-Detect" not in line
    ]


def _output(argv: list[str]) -> str:
    """What a program prints, "" when it is not there or fails: the setting is then simply not inherited."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, env={**os.environ, "LC_ALL": "C.UTF-8"})
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _unquote(value: str) -> str:
    """`value` as pip meant it: it prints Python string literals."""
    try:
        text = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return text if isinstance(text, str) else value


def _is_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()
