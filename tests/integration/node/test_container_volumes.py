"""Volumes in containers when something fails: what was written is committed, or is when the server starts next."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_fixtures import Site, mounted_volumes, open_site, until

from intermodal.model.container import BuiltImage, MountedObject
from intermodal.model.errors import BadImage
from intermodal.node.hooks import volumes as volumes_hook
from intermodal.volumes.mounts import VolumeMounts
from intermodal.volumes.recovery import recover
from intermodal.volumes.store import VolumeStore
from intermodal.volumes.verify import verify
from modal._wire.messages.app import LogStream
from modal.exception import InvalidError

_IDS = iter(f"vo-{number:022d}" for number in range(1_000))
WRITE_BOTH = """
    ready()
    for name in "ab":
        with open(f"/{name}/file", "w") as file:
            file.write(name)
    report(True)
    hear()
"""


def new_volume(site: Site) -> str:
    volume_id = next(_IDS)
    site.storage.volumes.create(volume_id)
    return volume_id


@pytest.fixture(autouse=True)
def no_volumes_afterwards(node_data: Path) -> Iterator[None]:
    yield
    shutil.rmtree(node_data / "volumes", ignore_errors=True)


def after_a_restart(site: Site, volume_id: str) -> dict[str, str]:
    """What a server that starts now finds in a volume."""
    store = VolumeStore(site.storage.volumes.root, 100_000)
    recover(store, volume_id)
    with VolumeMounts(store, site.data / "run" / "looked-at").reading(volume_id) as root:
        return {path.name: path.read_text() for path in sorted(root.iterdir())}


def fails_for(volume_id: str, real: Any, error: Exception) -> Any:
    """Like `real`, whose first argument is a volume or a session, but it raises for one volume."""

    def call(first: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(first, "volume_id", first) == volume_id:
            raise error
        return real(first, *args, **kwargs)

    return call


@pytest.mark.parametrize("what", ["collect", "has_writes", "commit", "close"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("unforeseen")])
async def test_a_volume_that_cannot_be_ended_takes_nothing_with_it(
    what: str, error: Exception, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_volume(site), new_volume(site)
    name = await site.start(WRITE_BOTH, volumes=(MountedObject("/a", first), MountedObject("/b", second)))
    assert await site.ask(name)
    store = site.storage.volumes
    monkeypatch.setattr(store, what, fails_for(first, getattr(store, what), error))
    site.agent.stop(name, 0)
    await site.exit_of(name)
    assert mounted_volumes(site.data) == []
    with VolumeMounts(store, site.data / "run" / "looked-at").reading(second) as root:
        assert (root / "file").read_text() == "b", "it was committed"
    if what in ("has_writes", "commit"):
        assert "It is tried again when the server starts next." in site.recorder.text[LogStream.SYSTEM]
    assert after_a_restart(site, first) == {"file": "a"}
    assert after_a_restart(site, second) == {"file": "b"}


async def test_a_volume_that_cannot_be_unmounted_keeps_its_files(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = new_volume(site), new_volume(site)
    name = await site.start(WRITE_BOTH, volumes=(MountedObject("/a", first), MountedObject("/b", second)))
    assert await site.ask(name)
    [stuck, _] = sorted(one.point for one in site.agent._volumes._mounted[name])  # type: ignore[union-attr]
    with monkeypatch.context() as patched:
        patched.setattr(volumes_hook, "unmount", fails_for(stuck, volumes_hook.unmount, OSError(errno.EIO, "broken")))  # type: ignore[arg-type]
        site.agent.stop(name, 0)
        await site.exit_of(name)
    with VolumeMounts(site.storage.volumes, site.data / "run" / "looked-at").reading(second) as root:
        assert (root / "file").read_text() == "b", "the other was committed"
    while volumes_hook.unmount(stuck):
        pass
    assert after_a_restart(site, first) == {"file": "a"}


async def test_a_counter_of_layers_that_a_power_cut_emptied(site: Site) -> None:
    volume = new_volume(site)
    for text in ("one", "two"):
        name = await site.start(
            f"ready(); open('/a/{text}', 'w').close(); report(1)", volumes=(MountedObject("/a", volume),)
        )
        assert await site.ask(name)
        await site.exit_of(name)
        (site.storage.volumes.root / volume / "next").write_text("")
    assert after_a_restart(site, volume) == {"one": "", "two": ""}


async def test_files_with_names_that_are_no_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes_hook, "_COMMIT_EVERY", 0.05)
    volume = new_volume(site)
    script = r"""
        import mmap
        ready()
        def mapped(name):
            with open(name, "w+b") as file:
                file.write(b"x")
                file.flush()
                return mmap.mmap(file.fileno(), 1)
        kept = [mapped(b"/tmp/\xff.bin")]
        open("/a/committed", "w").close()
        report(True)
        kept.append(mapped(b"/a/\xfe.bin"))
        report(True)
        hear()
    """
    name = await site.start(script, volumes=(MountedObject("/a", volume),))
    assert await site.ask(name)
    await until(lambda: site.storage.volumes.version(volume).number == 1)
    assert await site.ask(name)
    open_files = await site.agent.reload_volume(name, volume)
    assert open_files == [r"/a/\xfe.bin"]


@pytest.fixture
def linked(site: Site) -> Iterator[BuiltImage]:
    """An image with links where volumes are mounted."""
    layer = site.data / "storage" / "linked"
    for folder in ("run", "var", "mnt/big/sub"):
        (layer / folder).mkdir(parents=True)
    (layer / "var/run").symlink_to("/run")
    (layer / "data").symlink_to("mnt/big")
    (layer / "later").symlink_to("/mnt/../srv/made")
    (layer / "mnt/file").write_text("x")
    (layer / "loop").symlink_to("/loop")
    (layer / "processes").symlink_to("proc")
    (layer / "all").symlink_to("/")
    yield replace(site.image, layers=(layer, *site.image.layers))
    shutil.rmtree(layer)


@pytest.mark.parametrize("path", ["/var/run/v", "/data", "/data/sub", "/later", "/later/v"])
async def test_open_files_of_a_volume_that_links_lead_to(path: str, site: Site, linked: BuiltImage) -> None:
    script = f"""
        import mmap
        ready()
        log = open("{path}/log", "a")
        log.write("first ")
        log.flush()
        report(True)
        hear_it = hear()
        log.write("second ")
        log.flush()
        output(hear_it[0], b"1")
        answered = hear()
        log.close()
        with open("{path}/mapped", "w+b") as file:
            file.write(b"x")
            file.flush()
            mapping = mmap.mmap(file.fileno(), 1)
        output(answered[0], b"1")
        answered = hear()
        mapping.close()
        os.chdir("{path}")
        output(answered[0], b"1")
        hear()
    """
    volume = new_volume(site)
    name = await site.start(script, image=linked, volumes=(MountedObject(path, volume),))
    assert await site.ask(name)
    await site.agent.commit_volume(name, volume)
    [log] = await site.agent.reload_volume(name, volume)
    assert log.endswith("/log")
    assert await site.ask(name)
    await site.agent.commit_volume(name, volume)
    with VolumeMounts(site.storage.volumes, site.data / "run" / "looked-at").reading(volume) as root:
        assert (root / "log").read_text() == "first second "
    assert list(verify(site.storage.volumes, volume)) == []
    assert await site.ask(name)
    [mapped] = await site.agent.reload_volume(name, volume)
    assert mapped.endswith("/mapped")
    assert await site.ask(name)
    [folder] = await site.agent.reload_volume(name, volume)
    assert folder.startswith(f"{path} (the working directory of process")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["/run/a", "/var/run/a"], "'/run/a' and '/var/run/a' are the same directory, '/run/a'"),
        (["/data", "/mnt/big"], "'/data' and '/mnt/big' are the same directory"),
        (["/var/run/a/in", "/run/a"], "'/var/run/a/in' cannot be mounted within '/run/a'"),
        (["/a", "/data/sub/x", "/b", "/mnt"], "'/data/sub/x' cannot be mounted within '/mnt'"),
        (["/mnt/file"], "Nothing can be mounted at '/mnt/file': '/mnt/file' is a file in the image."),
        (["/mnt/file/x"], "Nothing can be mounted at '/mnt/file/x': '/mnt/file' is a file in the image."),
        (["/loop/x"], "Nothing can be mounted at '/loop/x': links in the image go round in circles."),
        (["/processes/1"], "Nothing can be mounted at '/processes/1': links in the image lead to '/proc/1'"),
        (["/all"], "Nothing can be mounted at '/all': links in the image lead to '/'"),
    ],
)
async def test_places_where_nothing_can_be_mounted(
    paths: list[str], words: str, site: Site, linked: BuiltImage
) -> None:
    volumes = tuple(MountedObject(path, new_volume(site)) for path in paths)
    with pytest.raises(InvalidError, match=re.escape(words)):
        await site.start("ready(); hear()", image=linked, volumes=volumes)
    assert site.storage.volumes.volumes() == []  # none was touched


async def test_volumes_side_by_side_by_links(site: Site, linked: BuiltImage) -> None:
    script = """
        ready()
        open("/data/sub/file", "w").write("a")
        open("/mnt/big/beside/file", "w").write("b")
        open("/var/run/x/file", "w").write("c")
        report(True)
    """
    volumes = tuple(MountedObject(path, new_volume(site)) for path in ("/data/sub", "/mnt/big/beside", "/var/run/x"))
    name = await site.start(script, image=linked, volumes=volumes)
    assert await site.ask(name)
    await site.exit_of(name)
    assert [after_a_restart(site, one.object_id) for one in volumes] == [{"file": text} for text in "abc"]


async def test_a_path_that_is_too_long_and_no_text_is_named(site: Site) -> None:
    volume = new_volume(site)
    script = r"""
        ready()
        os.chdir("/a")
        for number in range(20):
            os.mkdir(b"\xff" * 200)
            os.chdir(b"\xff" * 200)
        os.chdir("/")
        report(True)
        hear()
    """
    name = await site.start(script, volumes=(MountedObject("/a", volume),))
    assert await site.ask(name)
    with pytest.raises(InvalidError, match=r"\\xff") as raised:
        await site.agent.commit_volume(name, volume)
    raised.value.args[0].encode()


async def test_a_commit_of_one_container_keeps_no_other_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes_hook, "_COMMIT_EVERY", 0.05)
    slow, quick = new_volume(site), new_volume(site)
    store, real = site.storage.volumes, site.storage.volumes.commit

    def commit(session: Any) -> None:
        while session.volume_id == slow and store.version(quick).number == 0 and name in site.agent._containers:
            os.sched_yield()
        real(session)

    monkeypatch.setattr(store, "commit", commit)
    script = "ready(); open('/a/file', 'w').close(); report(True); hear()"
    name = await site.start(script, volumes=(MountedObject("/a", slow),))
    assert await site.ask(name)
    other = await site.start(script, volumes=(MountedObject("/a", quick),))
    assert await site.ask(other)
    await until(lambda: store.version(quick).number == 1)
    await until(lambda: store.version(slow).number == 1)


async def test_background_commits_survive_an_unforeseen_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes_hook, "_COMMIT_EVERY", 0.05)
    volume = new_volume(site)
    store, real, failures = site.storage.volumes, site.storage.volumes.commit, [ValueError("unforeseen")]

    def commit(session: Any) -> None:
        if failures:
            raise failures.pop()
        real(session)

    monkeypatch.setattr(store, "commit", commit)
    script = "ready(); open('/a/file', 'w').close(); report(True); hear()"
    assert await site.ask(await site.start(script, volumes=(MountedObject("/a", volume),)))
    await until(lambda: store.version(volume).number == 1)


async def test_a_reload_that_waits_for_a_commit_which_cannot_mount_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = new_volume(site)
    script = """
        ready()
        open("/a/file", "w").close()
        report(True)
        header, _ = hear()
        output(header, json.dumps(os.listdir("/a")).encode())
        hear()
    """
    name = await site.start(script, volumes=(MountedObject("/a", volume),))
    assert await site.ask(name)
    real, failures = volumes_hook.mount_overlay, [OSError(errno.EIO, "broken")]

    def mount_overlay(*args: Any, **kwargs: Any) -> None:
        if failures:
            raise failures.pop()
        real(*args, **kwargs)

    monkeypatch.setattr(volumes_hook, "mount_overlay", mount_overlay)
    commit, reload = await asyncio.gather(
        site.agent.commit_volume(name, volume), site.agent.reload_volume(name, volume), return_exceptions=True
    )
    assert isinstance(commit, Exception)
    assert reload == []
    assert await site.ask(name) == ["file"]


@pytest.mark.parametrize("gone", ["vo-" + "z" * 22, "sr-" + "z" * 22])
async def test_what_is_gone_fails_the_start_and_leaves_nothing(gone: str, node_data: Path, runner_home: Path) -> None:
    async with open_site(node_data, runner_home) as site:
        volumes = (MountedObject("/a", new_volume(site)), MountedObject("/b", gone))
        with pytest.raises(BadImage, match="/b is gone"):
            await site.start(WRITE_BOTH, volumes=volumes)
        assert list((site.storage.volumes.root / volumes[0].object_id / "open").iterdir()) == []
        assert not (site.storage.folders.root / gone).exists()
