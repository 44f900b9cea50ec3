"""The server's certificate: read from files, and read again when they change, as renewed ones do."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

from modal.exception import InvalidError

log = logging.getLogger(__name__)
_LOOK_EVERY = 30.0  # seconds between looks at the files


class Certificate:
    """`context` is for the listener; new connections get what was loaded last.

    Raises:
        InvalidError: the files are no certificate with its key.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = self._load()
        self._seen = self._stamps()

    @property
    def expires_at(self) -> float:
        """When the certificate in the file ends, in seconds since the epoch."""
        return load_pem_x509_certificate(self._files[0].read_bytes()).not_valid_after_utc.timestamp()

    async def watch(self, every: float = _LOOK_EVERY) -> None:
        """Load renewed files, until cancelled."""
        while True:
            await asyncio.sleep(every)
            self.renew()

    def renew(self) -> bool:
        """Load the files if they changed; True when they did. While they make no sense, the old ones serve on."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            self._load()  # loading half of a pair into the live context would break it
            self.context.load_cert_chain(*self._files, password=_refuse_password)
        except (InvalidError, OSError) as error:
            log.error("the renewed certificate is not used: %s", error)
            return False
        log.info("loaded the renewed certificate %s", self._files[0])
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        for path in self._files:
            try:
                path.read_bytes()
            except OSError as error:
                raise InvalidError(f"The TLS file {path} cannot be read: {error.strerror}.") from error
        try:
            context.load_cert_chain(certificate, key, password=_refuse_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error) or "malformed"
            raise InvalidError(
                f"{certificate} and {key} are not a certificate chain in PEM and its key without a password ({reason})."
            ) from error
        return context

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _refuse_password() -> str:
    return ""  # instead of asking at a terminal that nobody watches
