"""Changing the key that secrets are sealed with.

Three steps, each durable before the next: a new key is added to the key file, which still holds the old one; every
secret is sealed with the new one, in one transaction; the old key is dropped. Killed at any moment, the key file opens
everything, and doing it again finishes the job.
"""

from __future__ import annotations

from intermodal.store.interface import Store, StoreError
from intermodal.store.secret_box import SecretBox


async def rotate_key(store: Store, box: SecretBox) -> int:
    """Seal every secret with a new key; returns how many there are. Secrets may be used and written meanwhile.

    Raises:
        StoreError: the database failed, or a secret cannot be opened with the keys there are; then nothing is lost, and
            the older keys stay in the key file.
    """

    def reseal(secret_id: str, sealed: bytes) -> bytes:
        try:
            return box.seal(box.unseal(sealed))
        except StoreError as error:
            raise StoreError(f"The key was not changed, since secret {secret_id} would be lost: {error}") from None

    box.add_key()
    await store.write([])  # what was sealed before and is still on its way
    count = await store.reseal(reseal)
    box.drop_old_keys()
    return count
