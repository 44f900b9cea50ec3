"""Settings of the server, each with its environment variable ``INTERMODAL_<NAME>``. docs/settings.md lists them."""

from __future__ import annotations

import dataclasses
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path

from modal.exception import InvalidError


def default_data_dir() -> Path:
    """`/var/lib/intermodal` for root, else `~/.local/share/intermodal` (or below `XDG_DATA_HOME`)."""
    if os.geteuid() == 0:
        return Path("/var/lib/intermodal")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "intermodal"


@dataclass(frozen=True)
class Settings:
    """What an administrator can choose. Every field can be set by ``INTERMODAL_<NAME IN UPPER CASE>``."""

    data_dir: Path = field(default_factory=default_data_dir)  #: database, images, blobs, sockets
    cache_dir: Path = Path("/var/cache/intermodal")  #: base systems and package caches; may be shared and deleted
    host: str = "127.0.0.1"  #: address of the HTTP port
    port: int = 8787  #: the HTTP port; 0 takes a free one, -1 serves the Unix socket only
    tls_certificate: str = ""  #: PEM file with the certificate chain of the HTTP port; empty: no TLS
    tls_key: str = ""  #: PEM file with its key
    trusted_proxies: str = ""  #: addresses and networks, with commas, whose X-Forwarded-* headers are believed
    database_url: str = ""  #: SQLAlchemy URL; empty: SQLite in the data directory
    runtime: str = "runc"  #: an OCI runtime with runc's command line, or "mock": plain processes, for tests
    builder: str = "buildah"  #: "buildah", or "memory": nothing is built, for tests
    session_grace: float = 20.0  #: seconds after which an ephemeral app stops when its client stays away
    client_timeout: float = 60.0  #: seconds a client may give no sign of life before it counts as disconnected
    start_timeout: float = 30.0  #: seconds a new container has to say hello
    stop_grace: float = 30.0  #: seconds running inputs have to finish when a container is stopped
    retention: float = 7 * 24 * 3600.0  #: seconds results are kept
    network_pool: int = 2  #: network namespaces made ahead
    pids_limit: int = 4096  #: processes and threads in one container
    uid_base: int = 100_000  #: root in a container is this user id on the machine
    log_level: str = "INFO"  #: of the server's own log

    @property
    def run_dir(self) -> Path:
        """Sockets, the pid file and other things that do not outlive the server."""
        return self.data_dir / "run"

    @property
    def socket(self) -> Path:
        return self.run_dir / "server.sock"

    @property
    def direct_socket(self) -> Path:
        """Where clients of this machine connect to be put through to a container."""
        return self.run_dir / "direct.sock"

    @property
    def pid_file(self) -> Path:
        return self.run_dir / "server.pid"

    @property
    def secret_key_file(self) -> Path:
        """The key that secrets are encrypted with."""
        return self.data_dir / "secret.key"

    @property
    def log_file(self) -> Path:
        """Where a server started in the background writes its log."""
        return self.data_dir / "server.log"

    @property
    def url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'state.db'}"

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Read the environment; keyword arguments that are not None win.

        Raises:
            InvalidError: a value does not fit its setting; the message names both.
        """
        hints = typing.get_type_hints(cls)
        values: dict[str, object] = {}
        for item in dataclasses.fields(cls):
            given = overrides.get(item.name)
            if given is None:
                given = os.environ.get(f"INTERMODAL_{item.name.upper()}")
            if given is not None and given != "":
                values[item.name] = _convert(item.name, hints[item.name], given)
        settings = cls(**values)  # type: ignore[arg-type]
        # A relative directory would change its meaning with the working directory of a background server.
        return dataclasses.replace(
            settings,
            data_dir=settings.data_dir.expanduser().absolute(),
            cache_dir=settings.cache_dir.expanduser().absolute(),
            tls_certificate=_absolute(settings.tls_certificate),
            tls_key=_absolute(settings.tls_key),
        )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _convert(name: str, kind: type, value: object) -> object:
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise InvalidError(f"The setting {name} must be {kind.__name__}, but is {value!r}.") from error
