"""Encryption of secrets at rest, with a key file that only the server's user can read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from intermodal.store.interface import StoreError


class SecretBox:
    """Seals and opens the variables of secrets (Fernet: AES-128-CBC with HMAC-SHA256).

    Args:
        key_file: holds the key; made with mode 0600 when it does not exist.

    Raises:
        StoreError: the key file is not a key.
    """

    def __init__(self, key_file: Path) -> None:
        if not key_file.exists():
            # Written aside and linked into place: a crash never leaves half a key.
            draft = key_file.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(Fernet.generate_key())
                os.fsync(file.fileno())
            draft.rename(key_file)
        try:
            self._fernet = Fernet(key_file.read_bytes().strip())
        except ValueError as error:
            raise StoreError(
                f"{key_file} does not hold a key; restore it from a backup to read the secrets."
            ) from error

    def seal(self, env: dict[str, str]) -> bytes:
        return self._fernet.encrypt(json.dumps(env).encode())

    def unseal(self, sealed: bytes) -> dict[str, str]:
        """Raises `StoreError` when the key is not the one it was sealed with, or the bytes were changed."""
        try:
            opened = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise StoreError("A secret cannot be decrypted: the key file is not the one it was stored with.") from error
        return {str(name): str(value) for name, value in opened.items()}
