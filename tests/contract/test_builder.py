"""What every builder promises. The one on buildah builds for real."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from intermodal.builder.builder import BuildahBuilder
from intermodal.builder.interface import Builder
from intermodal.builder.memory import Behaviour, MemoryBuilder
from modal._wire.messages.image import ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError, NotFoundError, RemoteError

BASE = ImageLayer(LayerKind.DEBIAN_SLIM, python_version="3.11")


class Log:
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.text = ""

    def step(self, title: str) -> None:
        self.steps.append(title)

    def write(self, text: str) -> None:
        self.text += text


class Nothing:
    def env(self, secret_id: str) -> dict[str, str]:
        raise NotFoundError(f"There is no secret {secret_id}.")

    def note_use(self, secret_ids: Iterable[str]) -> None:
        """Nobody asks."""

    def path(self, digest: str) -> Path:
        raise NotFoundError(f"There is no blob {digest}.")


def behave(layer: ImageLayer) -> Behaviour:
    """The memory builder does what the commands of these tests do for real."""
    text = " ".join(layer.commands)
    return Behaviour(
        seconds=0.2 if "sleep 0.2" in text else 0.0,
        hangs="sleep 1000" in text,
        error="the reason" if "exit 3" in text else "",
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("data")
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["memory", pytest.param("buildah", marks=pytest.mark.e2e)])
async def builder(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[Builder]:
    builder: Builder
    if request.param == "memory":
        builder = MemoryBuilder(behave)
    else:
        if os.geteuid() != 0 or shutil.which("buildah") is None:
            pytest.skip("needs root and buildah")
        builder = BuildahBuilder(data, Nothing(), Nothing(), registry=False)
    await builder.open()
    yield builder
    await builder.close()


def spec(*commands: str, force_build: bool = False) -> ImageSpec:
    layers = [ImageLayer(LayerKind.COMMANDS, commands=[command]) for command in commands]
    return ImageSpec([BASE, *layers], force_build)


async def test_a_built_image_has_the_announced_id_and_can_be_got(builder: Builder) -> None:
    wanted = spec("RUN echo one")
    assert await builder.get(builder.image_id(wanted)) is None
    log = Log()
    image = await builder.build(wanted, log)
    assert image.image_id == builder.image_id(wanted)
    assert await builder.get(image.image_id) == image
    assert log.steps[-1] == "RUN echo one"
    assert log.text != ""


async def test_a_built_image_is_not_built_again(builder: Builder) -> None:
    await builder.build(spec("RUN echo two"), Log())
    log = Log()
    await builder.build(spec("RUN echo two"), log)
    assert log.steps == []
    await builder.build(spec("RUN echo two", "RUN echo three"), log)
    assert log.steps == ["RUN echo three"]


async def test_a_forced_build_builds_every_layer_under_the_same_id(builder: Builder) -> None:
    before = await builder.build(spec("RUN echo four"), Log())
    log = Log()
    after = await builder.build(spec("RUN echo four", force_build=True), log)
    assert log.steps == ["debian_slim (Python 3.11)", "RUN echo four"]
    assert after.image_id == before.image_id


async def test_concurrent_builds_build_once_and_all_see_everything(builder: Builder) -> None:
    wanted = spec("RUN sleep 0.2 && cat /proc/sys/kernel/random/uuid")
    await builder.build(ImageSpec([BASE]), Log())
    logs = [Log() for _ in range(3)]
    images = await asyncio.gather(*(builder.build(wanted, log) for log in logs))
    assert images[0] == images[1] == images[2]
    assert logs[0].text == logs[1].text == logs[2].text != ""
    assert all(len(log.steps) == 1 for log in logs)


async def test_a_failing_step_raises_for_all_who_wait_and_can_be_tried_again(builder: Builder) -> None:
    wanted = spec("RUN echo the reason; sleep 0.2; exit 3")
    results = await asyncio.gather(*(builder.build(wanted, Log()) for _ in range(2)), return_exceptions=True)
    for result in results:
        assert isinstance(result, RemoteError)
        assert str(result).startswith("Image build failed at: RUN echo the reason; sleep 0.2; exit 3\nthe reason")
    with pytest.raises(RemoteError):
        await builder.build(wanted, Log())
    assert await builder.get(builder.image_id(wanted)) is None


async def test_cancelling_one_caller_leaves_the_build_to_the_other(builder: Builder) -> None:
    wanted = spec("RUN echo five; sleep 0.2")
    await builder.build(ImageSpec([BASE]), Log())
    first, second = (asyncio.create_task(builder.build(wanted, Log())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).image_id == builder.image_id(wanted)


async def test_a_cancelled_build_ends_and_can_be_started_again(builder: Builder) -> None:
    wanted = spec("RUN sleep 1000")
    await builder.build(ImageSpec([BASE]), Log())
    for _ in range(2):
        log = Log()
        build = asyncio.create_task(builder.build(wanted, log))
        async with asyncio.timeout(60):
            while not log.steps:
                await asyncio.sleep(0.01)
        build.cancel()
        with pytest.raises(asyncio.CancelledError):
            await build


async def test_an_image_by_id_must_exist(builder: Builder) -> None:
    image = await builder.build(ImageSpec([BASE]), Log())
    existing = ImageLayer(LayerKind.EXISTING, image_id=image.image_id)
    assert await builder.build(ImageSpec([existing]), Log()) == image
    unknown = ImageLayer(LayerKind.EXISTING, image_id="im-" + "x" * 22)
    with pytest.raises(NotFoundError):
        await builder.build(ImageSpec([unknown]), Log())
    assert await builder.get("im-" + "x" * 22) is None
    assert await builder.get("../../etc/passwd") is None


async def test_specs_that_cannot_build_are_refused(builder: Builder) -> None:
    for wanted in (ImageSpec([]), spec("FROM other"), spec("NONSENSE x")):
        with pytest.raises(InvalidError):
            builder.image_id(wanted)
        with pytest.raises(InvalidError):
            await builder.build(wanted, Log())
    with pytest.raises(InvalidError, match=r"3\.13"):
        await builder.build(ImageSpec([ImageLayer(LayerKind.DEBIAN_SLIM, python_version="3.7")]), Log())


async def test_close_may_be_called_twice(builder: Builder) -> None:
    await builder.close()
    await builder.close()
