"""`intermodal doctor`: does this machine have what the server needs? Each finding says how to mend it."""

from __future__ import annotations

import enum
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from intermodal.cli.server_probe import holder
from intermodal.settings import Settings
from modal.exception import Error

GIB = 1024**3
DISK_FAIL, DISK_WARN = 1 * GIB, 5 * GIB  #: free bytes below which images will not fit, or soon will not
TLS_WARN = 14  #: days before its end from which on a certificate is worth a warning
PYTHONS = ("3.10", "3.11", "3.12", "3.13")  #: what `Image.debian_slim` offers


class State(enum.Enum):
    OK = "ok"
    WARN = "warn"  #: something will not work, or not always
    FAIL = "fail"  #: the server cannot run containers


@dataclass(frozen=True)
class Finding:
    name: str
    state: State
    text: str
    fix: str = ""  #: the command or step that mends it


@dataclass(frozen=True)
class Tool:
    """A program that the server runs."""

    command: str
    package: str
    purpose: str
    state_without: State = State.FAIL
    instead: str = ""  #: a program that does the same, and is preferred


TOOLS = (
    Tool("buildah", "buildah", "builds images"),
    Tool("mmdebstrap", "mmdebstrap", "makes base images where no registry can be reached", State.WARN),
    Tool("nft", "nftables", "connects containers to the network"),
    Tool("ip", "iproute2", "connects containers to the network"),
    Tool("s3fs", "s3fs", "mounts buckets (modal.CloudBucketMount)", State.WARN, "mount-s3"),
)


def examine(settings: Settings) -> list[Finding]:
    """Run every check. Makes no lasting change to the machine; a check that breaks is a failed finding."""
    findings: list[Finding] = []
    for check in (
        _root,
        _tools,
        _seccomp,
        _kernel,
        _idmapped_mounts,
        _cgroups,
        _data_directory,
        _port,
        _certificates,
        _tls,
        _pythons,
    ):
        findings += _run(check, settings)
    return findings


def _run(check: Callable[[Settings], Iterable[Finding]], settings: Settings) -> list[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check(settings))
    except (Error, OSError) as error:
        return [Finding(name, State.FAIL, f"could not be checked: {error}")]


def _root(settings: Settings) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("root", State.OK, "this is root")
    else:
        yield Finding(
            "root", State.FAIL, "containers are made by root", "run the server and `intermodal doctor` as root"
        )


def _tools(settings: Settings) -> Iterator[Finding]:
    runtime = Tool(settings.runtime, settings.runtime, "runs containers")
    tools = TOOLS if settings.runtime == "mock" else (runtime, *TOOLS)
    for tool in tools:
        path = (shutil.which(tool.instead) if tool.instead else None) or shutil.which(tool.command)
        if path is not None:
            yield Finding(tool.command, State.OK, path)
        else:
            yield Finding(
                tool.command,
                tool.state_without,
                f"not found; it {tool.purpose}",
                f"apt-get install -y {tool.package}",
            )


def _seccomp(settings: Settings) -> Iterator[Finding]:
    from intermodal.runtimes.seccomp import PROFILE

    fix = "apt-get install -y golang-github-containers-common"
    if not PROFILE.is_file():
        yield Finding("seccomp profile", State.FAIL, f"{PROFILE} is missing; it restricts containers", fix)
        return
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if actions.exists() and "errno" in actions.read_text():
        yield Finding("seccomp profile", State.OK, str(PROFILE))
    else:
        yield Finding(
            "seccomp profile",
            State.FAIL,
            "this kernel has no seccomp filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )


def _kernel(settings: Settings) -> Iterator[Finding]:
    limit = Path("/proc/sys/user/max_user_namespaces")
    if not Path("/proc/self/ns/user").exists():
        yield Finding("user namespaces", State.FAIL, "this kernel has none", "boot a kernel with CONFIG_USER_NS")
    elif limit.exists() and int(limit.read_text()) < 1:
        yield Finding("user namespaces", State.FAIL, "switched off", "sysctl -w user.max_user_namespaces=65536")
    else:
        yield Finding("user namespaces", State.OK, f"up to {limit.read_text().strip() if limit.exists() else 'any'}")
    systems = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.split()}
    if "overlay" in systems:
        yield Finding("overlayfs", State.OK, "known to this kernel")
    else:
        yield Finding("overlayfs", State.FAIL, "not known to this kernel", "modprobe overlay")


def _idmapped_mounts(settings: Settings) -> Iterator[Finding]:
    """Try one on the data directory's file system."""
    if os.geteuid() != 0:
        yield Finding("idmapped mounts", State.WARN, "only root can check them", "run `sudo intermodal doctor`")
        return
    from intermodal.node.network.namespaces import NamespaceMaker
    from intermodal.runtimes.syscalls import bind_idmapped, unmount

    base = _existing(settings.data_dir)
    maker = NamespaceMaker(settings.uid_base)
    try:
        namespaces = maker.make({})
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=base) as folder:
            source, target = Path(folder, "source"), Path(folder, "target")
            source.mkdir()
            target.mkdir()
            try:
                bind_idmapped(source, target, namespaces.user)
                owner = target.stat().st_uid
            except OSError as error:
                yield Finding(
                    "idmapped mounts",
                    State.FAIL,
                    f"not possible on the file system of {base}: {error.strerror or error}",
                    "put the data directory on ext4, xfs or btrfs (--data-dir), on Linux 5.12 or newer",
                )
                return
            finally:
                unmount(target)
                namespaces.close()
        if owner == settings.uid_base:
            yield Finding("idmapped mounts", State.OK, f"work on the file system of {base}")
        else:
            yield Finding(
                "idmapped mounts",
                State.FAIL,
                f"a file of root shows uid {owner} instead of {settings.uid_base} on {base}",
                "put the data directory on another file system (--data-dir)",
            )
    finally:
        maker.close()


def _cgroups(settings: Settings) -> Iterator[Finding]:
    from intermodal.runtimes.cgroups import Cgroups

    groups = Cgroups("/intermodal")
    kind = "version 2" if groups.unified_only else "version 1 or hybrid"
    if groups.has_memory:
        yield Finding("cgroups", State.OK, f"{kind}, with the memory controller")
    else:
        yield Finding(
            "cgroups",
            State.WARN,
            f"{kind}, without the memory controller: memory limits are not enforced",
            "boot with `cgroup_enable=memory`",
        )


def _data_directory(settings: Settings) -> Iterator[Finding]:
    base = _existing(settings.data_dir)
    if not os.access(base, os.W_OK):
        yield Finding(
            "data directory", State.FAIL, f"{base} cannot be written to", "choose another with INTERMODAL_DATA_DIR"
        )
    usage = shutil.disk_usage(base)
    state = State.FAIL if usage.free < DISK_FAIL else State.WARN if usage.free < DISK_WARN else State.OK
    fix = "" if state is State.OK else "free some space, or choose another directory with INTERMODAL_DATA_DIR"
    yield Finding("disk space", state, f"{usage.free / GIB:.1f} GiB free for {settings.data_dir}", fix)


def _port(settings: Settings) -> Iterator[Finding]:
    if settings.port <= 0 or holder(settings) is not None:
        return
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        yield Finding(
            "HTTP port",
            State.FAIL,
            f"{settings.host}:{settings.port} cannot be opened: {error.strerror or error}",
            "choose another with INTERMODAL_PORT (0 takes a free one)",
        )
        return
    yield Finding("HTTP port", State.OK, f"{settings.host}:{settings.port} is free")


def _certificates(settings: Settings) -> Iterator[Finding]:
    paths = ssl.get_default_verify_paths()
    named = [os.environ.get(paths.openssl_cafile_env), paths.cafile, "/etc/ssl/certs/ca-certificates.crt"]
    found = next((name for name in named if name and Path(name).is_file()), None)
    if found is not None:
        yield Finding("CA bundle", State.OK, found)
    else:
        yield Finding(
            "CA bundle", State.WARN, "none found: nothing can be downloaded", "apt-get install -y ca-certificates"
        )


def _tls(settings: Settings) -> Iterator[Finding]:
    if not settings.tls_certificate and not settings.tls_key:
        return
    from intermodal.control.http_port import load_certificate

    fix = "set INTERMODAL_TLS_CERTIFICATE and INTERMODAL_TLS_KEY to PEM files that belong together"
    try:
        certificate = load_certificate(settings)
        assert certificate is not None
    except Error as error:
        yield Finding("TLS certificate", State.FAIL, str(error).rstrip("."), fix)
        return
    days = (certificate.expires_at - time.time()) / 86400
    until = time.strftime("%Y-%m-%d", time.localtime(certificate.expires_at))
    if days < 0:
        yield Finding("TLS certificate", State.FAIL, f"expired on {until}", "renew it; the server notices by itself")
    elif days < TLS_WARN:
        yield Finding("TLS certificate", State.WARN, f"expires on {until}", "renew it; the server notices by itself")
    else:
        yield Finding("TLS certificate", State.OK, f"valid until {until}")


def _pythons(settings: Settings) -> Iterator[Finding]:
    from intermodal.builder.bases import DEBIAN_SERIES
    from intermodal.builder.python_source import find_interpreters

    interpreters = find_interpreters(dict(os.environ), settings.cache_dir / "pythons")
    found = {".".join(item.version.split(".")[:2]) for item in interpreters}
    here = [version for version in PYTHONS if version in found]
    missing = [version for version in PYTHONS if version not in {*found, DEBIAN_SERIES}]
    text = f"on this machine: {', '.join(here) or 'none that can be copied'}"
    if DEBIAN_SERIES not in found:
        text += f"; {DEBIAN_SERIES} from Debian's packages"
    if not missing:
        yield Finding("Pythons for images", State.OK, text)
        return
    yield Finding(
        "Pythons for images",
        State.WARN,
        f"{text}; {', '.join(missing)} must come from a registry or a download",
        f"uv python install {' '.join(missing)}",
    )


def _existing(path: Path) -> Path:
    """`path`, or the nearest directory above it that exists."""
    while not path.is_dir():
        path = path.parent
    return path
