"""Images, mounts and secrets against the server's own services over its own RPC."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from blob_server import BlobServer

from intermodal.blobs.local import LocalBlobStore
from intermodal.builder.memory import Behaviour, MemoryBuilder
from intermodal.control.blob_service import BlobService
from intermodal.control.image_service import ImageService
from intermodal.control.mount_service import MountService
from intermodal.control.rpc import Dispatcher, serve_unix
from intermodal.store.memory import MemoryStore
from modal import _output
from modal._local_files import LocalFile
from modal._objects import mount as mount_module
from modal._objects.image_build import build
from modal._objects.mount import create_mounts
from modal._objects.resolver import Resolver
from modal._upload import download_bytes, upload_bytes
from modal._wire.client import RpcClient
from modal._wire.messages.image import BuildEvent, ImageInfo, ImageSpec
from modal.exception import ConnectionError, DeprecationError, InvalidError, NotFoundError, RemoteError
from modal.image import Image
from modal.mount import Mount


class Recorder(_output.SilentOutput):
    """Output that remembers image build steps."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, title: str):
        recorder = self

        class Step:
            def log(self, text: str) -> None:
                recorder.lines.append(f"{title}: {text.strip()}")

            def done(self, text: str = "") -> None:
                recorder.lines.append(f"{title} done")

            def fail(self, text: str = "") -> None:
                recorder.lines.append(f"{title} failed: {text}")

        return Step()

    def message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    recorder = Recorder()
    monkeypatch.setattr(_output, "_active", recorder)
    return recorder.lines


class Server:
    def __init__(self, directory: Path) -> None:
        self.behaviour = Behaviour()
        self.builder = MemoryBuilder(lambda layer: self.behaviour)
        self.blobs = LocalBlobStore(directory / "blobs")
        self.mounts = MountService(MemoryStore(), self.blobs, time.time)


@pytest.fixture
async def server(tmp_path: Path):
    server = Server(tmp_path)
    await server.blobs.open()
    await server.builder.open()
    dispatcher = Dispatcher()
    for service in (BlobService(server.blobs), ImageService(server.builder), server.mounts):
        service.register(dispatcher)
    listener = await serve_unix(dispatcher, tmp_path / "rpc.sock")
    server.client = RpcClient(f"unix://{tmp_path}/rpc.sock", session="se-test")
    await server.client.open()
    server.resolver = Resolver(server.client, "ap-test")
    yield server
    await server.resolver.close()
    await server.client.close()
    await dispatcher.close()
    listener.close()
    await server.builder.close()


async def test_an_image_is_built_once_and_its_steps_are_shown(server: Server, tmp_path: Path, shown) -> None:
    (tmp_path / "data.txt").write_text("data")
    image = Image.debian_slim("3.11").add_local_file(tmp_path / "data.txt", "/data.txt", copy=True)
    image_id = await server.resolver.load(image)
    assert image_id.startswith("im-")
    assert image.object_id == image_id
    assert shown[:3] == [
        "debian_slim (Python 3.11): built in memory",
        "debian_slim (Python 3.11) done",
        'COPY [".", "/"]: built in memory',
    ]
    again = Image.debian_slim("3.11").add_local_file(tmp_path / "data.txt", "/data.txt", copy=True)
    assert await server.resolver.load(again) == image_id
    assert len(server.builder.built) == 2
    (tmp_path / "data.txt").write_text("changed")
    changed = Image.debian_slim("3.11").add_local_file(tmp_path / "data.txt", "/data.txt", copy=True)
    assert await server.resolver.load(changed) != image_id
    assert len(server.builder.built) == 3


async def test_force_build_of_the_configuration_builds_again(server: Server, monkeypatch) -> None:
    await server.resolver.load(Image.debian_slim("3.11"))
    monkeypatch.setenv("MODAL_FORCE_BUILD", "1")
    await server.resolver.load(Image.debian_slim("3.11"))
    assert len(server.builder.built) == 2


async def test_a_failing_step_is_a_remote_error_with_its_output(server: Server, shown) -> None:
    server.behaviour = Behaviour(error="E: Unable to locate package nothere")
    with pytest.raises(RemoteError, match="Unable to locate package"):
        await server.resolver.load(Image.debian_slim("3.11").apt_install("nothere"))
    assert any("failed: Image build failed at" in line for line in shown)


async def test_an_image_by_id_is_looked_up(server: Server) -> None:
    image_id = await server.resolver.load(Image.debian_slim("3.11"))
    assert await server.resolver.load(Image.from_id(image_id)) == image_id
    with pytest.raises(NotFoundError):
        await server.resolver.load(Image.from_id("im-0123456789abcdefghijkl"))


async def test_a_mount_is_created_from_its_files(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("a = 1")
    (tmp_path / "pkg" / "b.txt").write_text("b")
    with pytest.warns(DeprecationError, match="add_local_dir"):
        mount = Mount.from_local_dir(tmp_path / "pkg", condition=lambda path: path.endswith(".py"))
    mount = mount.add_local_file(tmp_path / "pkg" / "b.txt", "/root/c.txt")
    mount_id = await server.resolver.load(mount)
    assert [entry.path for entry in await server.mounts.files(mount_id)] == ["/pkg/a.py", "/root/c.txt"]


async def test_a_payload_travels_through_the_blob_store(server: Server) -> None:
    data = bytes(range(256)) * 20_000
    ref = await upload_bytes(server.client, data)
    assert await download_bytes(server.client, ref) == data


async def test_many_files_become_several_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_module, "_REQUEST_BYTES", 1000)
    files = []
    for number in range(20):
        path = tmp_path / f"f{number}"
        path.write_text("x")
        files.append(LocalFile(path, f"/root/f{number}"))
    blobs = BlobServer()
    ids = await create_mounts(blobs, files)
    assert len(ids) == len(blobs.mounts) > 1
    assert [entry.path for part in blobs.mounts for entry in part] == [file.remote_path for file in files]


def test_a_mount_refuses_a_bad_place() -> None:
    with pytest.warns(DeprecationError), pytest.raises(InvalidError, match=r"'\.\.'"):
        Mount.from_local_file("x", "/../x")
    with pytest.warns(DeprecationError), pytest.raises(InvalidError, match="not both"):
        Mount.from_local_python_packages("json", condition=bool, ignore=[])


class Flaky:
    """A client whose first build streams break."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks

    def stream(self, method, request, body=b"", *, timeout=None):
        flaky = self

        class Stream:
            async def __aenter__(self):
                return self.events()

            async def __aexit__(self, *error) -> None: ...

            async def events(self):
                yield BuildEvent(step="one"), b""
                if flaky.breaks:
                    flaky.breaks -= 1
                    raise ConnectionError("lost")
                yield BuildEvent(done=ImageInfo("im-1")), b""

        return Stream()


async def test_a_build_is_joined_again_when_the_connection_breaks(shown) -> None:
    assert (await build(Flaky(2), ImageSpec())).image_id == "im-1"
    assert shown[:2] == ["one failed: lost", "The connection broke during the image build; joining it again."]
    with pytest.raises(ConnectionError):
        await build(Flaky(3), ImageSpec())
