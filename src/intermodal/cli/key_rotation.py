"""Changing the key of secrets: by the server when one runs, else by this process."""

from __future__ import annotations

import asyncio

from intermodal.cli.server_probe import holder, request
from intermodal.daemon import data_directory, make_store
from intermodal.settings import Settings
from intermodal.store.key_rotation import rotate_key
from intermodal.store.memory import MEMORY_URL
from intermodal.store.secret_box import SecretBox
from modal._wire.messages.common import Empty
from modal._wire.messages.secret import SECRET_ROTATE_KEY
from modal.exception import InvalidError


def rotate(settings: Settings) -> int:
    """Encrypt every secret with a new key; returns how many there are.

    Raises:
        InvalidError: there are no secrets here, or the data directory is taken by a server that just starts or stops.
        StoreError: the database or the key file failed; what was encrypted can still be read.
    """
    if holder(settings) is not None:
        return asyncio.run(request(settings, SECRET_ROTATE_KEY, Empty(), timeout=None)).secrets
    if settings.url == MEMORY_URL or not settings.secret_key_file.exists():
        raise InvalidError(f"There are no secrets in {settings.data_dir}: no server has run on it.")
    with data_directory(settings):
        return asyncio.run(_rotate(settings))


async def _rotate(settings: Settings) -> int:
    store = make_store(settings)
    try:
        await store.open()
        return await rotate_key(store, SecretBox(settings.secret_key_file))
    finally:
        await store.close()
