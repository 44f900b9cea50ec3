"""Encryption of secrets at rest, with a key file that only the server's user can read.

The file holds one key a line. The first seals; the others, of which there are some only while the key is being changed,
open what was sealed before.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from intermodal.store.interface import StoreError


class SecretBox:
    """Seals and opens the variables of secrets (Fernet: AES-128-CBC with HMAC-SHA256).

    Args:
        key_file: holds the keys; made with mode 0600 when it does not exist.

    Raises:
        StoreError: the key file does not hold keys.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        if not key_file.exists():
            _write(key_file, [Fernet.generate_key()])
        self._keys = key_file.read_bytes().split()
        self._fernet = self._open()

    def _open(self) -> MultiFernet:
        try:
            return MultiFernet([Fernet(key) for key in self._keys])
        except ValueError as error:
            raise StoreError(
                f"{self._key_file} does not hold a key; restore it from a backup to read the secrets."
            ) from error

    def add_key(self) -> None:
        """From now on seal with a new key; what older keys sealed can still be opened. Durable when it returns."""
        keys = [Fernet.generate_key(), *self._keys]
        _write(self._key_file, keys)
        self._keys = keys
        self._fernet = self._open()

    def drop_old_keys(self) -> None:
        """Forget every key but the one that seals: nothing may be left that only an older one opens."""
        keys = self._keys[:1]
        _write(self._key_file, keys)
        self._keys = keys
        self._fernet = self._open()

    def seal(self, env: dict[str, str]) -> bytes:
        return self._fernet.encrypt(json.dumps(env).encode())

    def unseal(self, sealed: bytes) -> dict[str, str]:
        """Raises `StoreError` when no key is the one it was sealed with, or the bytes were changed."""
        try:
            opened = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise StoreError("It cannot be decrypted: no key in the key file is the one it was stored with.") from None
        return {str(name): str(value) for name, value in opened.items()}


def _write(key_file: Path, keys: list[bytes]) -> None:
    """Replace the file in one step: a crash leaves the keys of before or those of after, never half a key."""
    draft = key_file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(b"\n".join(keys) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(key_file)
    directory = os.open(key_file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
