"""Whatever happens while the key of secrets is changed, every secret can be read afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from intermodal.store.interface import AppRecord, NamedSecretRecord, SecretRecord, StoreError
from intermodal.store.key_rotation import rotate_key
from intermodal.store.secret_box import SecretBox
from intermodal.store.sql import SqlStore

APP = AppRecord("ap-1", None, "x", "en-main", "ephemeral", "se-1", 1.0)
VALUES = [{"A": f"value {number}", "B": "é\n"} for number in range(20)]

#: Rotates for ever, saying so each time. Its arguments: the database, the journal, the key file.
ROTATE = """
import asyncio, sys
from pathlib import Path
from intermodal.store.key_rotation import rotate_key
from intermodal.store.secret_box import SecretBox
from intermodal.store.sql import SqlStore

async def main():
    store = SqlStore(sys.argv[1], Path(sys.argv[2]))
    await store.open()
    box = SecretBox(Path(sys.argv[3]))
    while True:
        await rotate_key(store, box)
        print("rotated", flush=True)

asyncio.run(main())
"""


class Place:
    """A database and a key file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.key, self.journal, self.url = folder / "secret.key", folder / "journal", url

    def store(self) -> SqlStore:
        return SqlStore(self.url, self.journal)

    def box(self) -> SecretBox:
        return SecretBox(self.key)

    @property
    def keys(self) -> list[bytes]:
        return self.key.read_bytes().split()

    async def fill(self) -> None:
        store, box = self.store(), self.box()
        await store.open()
        await store.write([APP])
        for number, env in enumerate(VALUES):
            secret = SecretRecord(f"st-{number}", "ap-1", box.seal(env))
            named = NamedSecretRecord(f"sr-{number}", "en-main", f"s{number}", box.seal(env), 1.0)
            await store.write([secret, named])
        await store.close()

    async def check(self) -> None:
        """Every secret can be read by whoever starts now."""
        store, box = self.store(), self.box()
        await store.open()
        loaded = await store.load()
        await store.close()
        for prefix, found in (("st", loaded.secrets), ("sr", loaded.named_secrets)):
            opened = {one.secret_id: box.unseal(one.sealed) for one in found}
            assert opened == {f"{prefix}-{number}": env for number, env in enumerate(VALUES)}


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = f"sqlite:///{tmp_path}/state.db"
    made = Place(tmp_path, url if request.param == "sqlite" else request.getfixturevalue("postgresql_database"))
    await made.fill()
    return made


async def test_every_secret_is_sealed_with_the_new_key_alone(place: Place) -> None:
    [old] = place.keys
    store = place.store()
    await store.open()
    assert await rotate_key(store, place.box()) == 2 * len(VALUES)
    await store.close()
    [new] = place.keys
    assert new != old
    assert place.key.stat().st_mode & 0o777 == 0o600
    await place.check()


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("step", ["key is added", "secrets are sealed", "old key is dropped"])
async def test_a_rotation_that_ends_before_a_step_loses_nothing_and_is_finished_by_the_next(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise Killed

    broken: dict[str, tuple[type, str]] = {
        "key is added": (SecretBox, "add_key"),
        "secrets are sealed": (SqlStore, "reseal"),
        "old key is dropped": (SecretBox, "drop_old_keys"),
    }
    store = place.store()
    await store.open()
    with monkeypatch.context() as patch:
        patch.setattr(*broken[step], die)
        with pytest.raises(Killed):
            await rotate_key(store, place.box())
    await store.close()
    await place.check()
    store = place.store()
    await store.open()
    await rotate_key(store, place.box())
    await store.close()
    assert len(place.keys) == 1
    await place.check()


async def test_secrets_can_be_written_during_a_rotation(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store, box = place.store(), place.box()
    await store.open()
    reseal = store.reseal

    async def reseal_slowly(convert: Callable[[str, bytes], bytes]) -> int:
        count = await reseal(convert)
        late = NamedSecretRecord("sr-0", "en-main", "s0", box.seal(VALUES[0]), 1.0)
        await store.write([late])
        return count

    monkeypatch.setattr(store, "reseal", reseal_slowly)
    early = NamedSecretRecord("sr-1", "en-main", "s1", box.seal(VALUES[1]), 1.0)
    store.write([early])  # on its way as the rotation begins
    await rotate_key(store, box)
    await store.close()
    await place.check()


@pytest.mark.parametrize("round", range(4))
async def test_a_rotation_that_is_killed_loses_nothing(place: Place, round: int) -> None:
    script = [sys.executable, "-c", ROTATE, place.url, str(place.journal), str(place.key)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "rotated\n"
        # Somewhere in one of the next rotations, each of which takes some milliseconds.
        time.sleep(random.Random(round).uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
    assert 1 <= len(place.keys) <= 2
    await place.check()


async def test_a_key_that_does_not_open_a_secret_is_not_replaced(place: Place) -> None:
    kept = place.key.read_bytes()
    place.key.write_bytes(Fernet.generate_key())
    store = place.store()
    await store.open()
    with pytest.raises(StoreError, match=r"The key was not changed, since secret s[tr]-[0-9]+ would be lost"):
        await rotate_key(store, place.box())
    await store.close()
    place.key.write_bytes(place.key.read_bytes() + kept)
    await place.check()


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"not a key", Fernet.generate_key() + b"\nnot a key"):
        (tmp_path / "secret.key").write_bytes(content)
        with pytest.raises(StoreError, match="does not hold a key"):
            SecretBox(tmp_path / "secret.key")
