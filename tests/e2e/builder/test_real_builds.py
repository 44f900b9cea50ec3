"""Images that are really built."""

from __future__ import annotations

import asyncio
import re
import uuid
from pathlib import Path

import pytest
from fakes import BASE, Blobs, Log, Secrets, commands, pip, spec

from intermodal.builder.builder import BuildahBuilder
from intermodal.model.container import BuiltImage
from intermodal.overlay.layer_tree import LayerTree
from modal._wire.messages.image import ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError, NotFoundError, RemoteError

pytestmark = pytest.mark.e2e


def read(image: BuiltImage, path: str) -> str:
    found = LayerTree(image.layers).find(path)
    assert found is not None, f"{path} is not in the image"
    return found.read_text()


def fresh() -> str:
    """A word that no earlier test used, so that a layer with it is in no cache."""
    return uuid.uuid4().hex


async def test_debian_slim_has_a_working_python_pip_and_certificates(builder: BuildahBuilder) -> None:
    check = (
        "python -c 'import ssl, sys; print(sys.version_info[:2], sys.prefix)' > /out && pip --version >> /out "
        "&& python3 -m venv /v && test ! -e /usr/local/lib/python3.11/test "
        "&& cat /etc/ssl/certs/ca-certificates.crt > /ca"
    )
    image = await builder.build(spec(commands(f"RUN {check}")), Log())
    out = read(image, "/out")
    assert re.match(r"\(3, 11\) /usr(/local)?\npip ", out)  # Debian's own Python is in /usr
    assert "BEGIN CERTIFICATE" in read(image, "/ca")
    assert image.python == "/usr/local/bin/python"
    assert image.python_version.startswith("3.11.")
    assert image.env["PATH"].startswith("/usr/local/bin")
    assert "Debian bookworm" in image.source


async def test_layers_are_overlay_directories_topmost_first_below_the_storage(
    builder: BuildahBuilder, data: Path
) -> None:
    image = await builder.build(spec(commands("RUN echo one > /file"), commands("RUN echo two > /file")), Log())
    assert (image.layers[0] / "file").read_text() == "two\n"
    assert (image.layers[1] / "file").read_text() == "one\n"
    assert all(path.is_relative_to(data / "storage") for path in image.layers)


async def test_a_step_that_was_built_is_found_at_once_even_by_another_builder(
    builder: BuildahBuilder, data: Path, blobs: Blobs, secrets: Secrets
) -> None:
    wanted = spec(commands("RUN echo found > /found"))
    image = await builder.build(wanted, Log())
    other = BuildahBuilder(data, blobs, secrets, registry=False)
    await other.open()
    log = Log()
    assert await other.build(wanted, log) == image
    assert log.steps == []
    assert await other.get(image.image_id) == image
    await other.close()


async def test_two_concurrent_builds_of_one_image_build_once_and_both_see_the_output(builder: BuildahBuilder) -> None:
    wanted = spec(commands(f"RUN echo building {fresh()} && sleep 0.5 && cat /proc/sys/kernel/random/uuid > /uuid"))
    logs = [Log(), Log()]
    images = await asyncio.gather(*(builder.build(wanted, log) for log in logs))
    assert images[0] == images[1]
    assert logs[0].text == logs[1].text
    assert "building" in logs[0].text


async def test_only_a_changed_last_layer_is_built_again(builder: BuildahBuilder) -> None:
    first = commands(f"RUN echo {fresh()} > /first")
    before = await builder.build(spec(first, commands("RUN echo a > /second")), Log())
    log = Log()
    after = await builder.build(spec(first, commands("RUN echo b > /second")), log)
    assert log.steps == ["RUN echo b > /second"]
    assert after.layers[1:] == before.layers[1:]
    assert after.image_id != before.image_id


async def test_force_build_builds_again_under_the_same_id(builder: BuildahBuilder) -> None:
    text = "RUN cat /proc/sys/kernel/random/uuid > /uuid"
    before = await builder.build(spec(commands(text)), Log())
    after = await builder.build(spec(commands(text, force_build=True)), Log())
    assert after.image_id == before.image_id
    assert read(after, "/uuid") != read(before, "/uuid")
    assert await builder.get(after.image_id) == after


async def test_a_failing_step_says_which_and_how_it_ended(builder: BuildahBuilder) -> None:
    wanted = spec(commands("RUN echo fine", "RUN echo about to fail; echo reason >&2; exit 7", "RUN echo never"))
    log = Log()
    with pytest.raises(RemoteError) as caught:
        await builder.build(wanted, log)
    first, *output, last = str(caught.value).splitlines()
    assert first == "Image build failed at: RUN echo about to fail; echo reason >&2; exit 7"
    assert sorted(output) == ["about to fail", "reason"]  # two streams: their order is not fixed
    assert last == "The step ended with exit status 7."
    assert "/run/intermodal" not in log.text
    assert await builder.get(builder.image_id(wanted)) is None


async def test_a_missing_copy_source_is_named(builder: BuildahBuilder) -> None:
    with pytest.raises(RemoteError, match=r"(?s)COPY nothere /x\n.*nothere"):
        await builder.build(spec(commands("COPY nothere /x")), Log())


async def test_a_package_that_does_not_exist_is_named_with_the_installers_words(builder: BuildahBuilder) -> None:
    name = f"no-such-package-{fresh()}"
    with pytest.raises(RemoteError) as caught:
        await builder.build(spec(pip(name)), Log())
    message = str(caught.value)
    assert message.startswith(f"Image build failed at: pip install {name}\n")
    assert "not found in the package registry" in message or "No solution found" in message


async def test_pip_install_installs_and_compiles(builder: BuildahBuilder) -> None:
    wanted = spec(pip("six==1.16.0"), commands("RUN python -B -c 'import six; print(six.__cached__)' > /compiled"))
    image = await builder.build(wanted, Log())
    compiled = read(image, "/compiled").strip()
    assert compiled.endswith("/six.cpython-311.pyc")
    assert LayerTree(image.layers).find(compiled) is not None


async def test_extra_options_are_pips(builder: BuildahBuilder) -> None:
    log = Log()
    await builder.build(spec(pip("six==1.16.0", extra_options="--no-deps --no-compile")), log)
    assert log.steps == ["pip install six==1.16.0 --no-deps --no-compile"]
    assert "Successfully installed six-1.16.0" in log.text


async def test_package_names_cannot_run_commands(builder: BuildahBuilder) -> None:
    with pytest.raises(RemoteError):
        await builder.build(spec(pip("six; touch /owned", "$(touch /owned)")), Log())


async def test_apt_install_works(builder: BuildahBuilder) -> None:
    wanted = spec(
        commands("RUN apt-get update && apt-get install -y --no-install-recommends hello", "RUN hello > /out")
    )
    image = await builder.build(wanted, Log())
    assert read(image, "/out") == "Hello, world!\n"


async def test_environment_workdir_entrypoint_and_user_files_are_in_the_image(
    builder: BuildahBuilder, blobs: Blobs
) -> None:
    entries = [blobs.add("sub/tool.sh", b"#!/bin/sh\necho tool\n", 0o755), blobs.add("data.txt", b"data")]
    lines = ['ENV A="b \\"c\\" $PATH"', "WORKDIR /work", "COPY . /copied", "RUN /copied/sub/tool.sh > out"]
    image = await builder.build(spec(commands(*lines, 'ENTRYPOINT ["/x", "y z"]', context=entries)), Log())
    assert image.env["A"].startswith('b "c" /usr/local/bin:')
    assert image.workdir == "/work"
    assert image.entrypoint == ("/x", "y z")
    assert read(image, "/work/out") == "tool\n"
    assert read(image, "/copied/data.txt") == "data"


async def test_a_dockerignore_among_the_files_is_a_file_like_others(builder: BuildahBuilder, blobs: Blobs) -> None:
    entries = [blobs.add(".dockerignore", b"*\n"), blobs.add("kept.txt", b"kept")]
    image = await builder.build(spec(commands("COPY . /files/", context=entries)), Log())
    assert read(image, "/files/kept.txt") == "kept"
    assert read(image, "/files/.dockerignore") == "*\n"


async def test_exec_form_and_other_shells_run(builder: BuildahBuilder) -> None:
    lines = [
        'RUN ["/bin/sh", "-c", "echo $0 > /exec", "word"]',
        'SHELL ["/bin/bash", "-c"]',
        "RUN [[ a == a ]] && echo ok > /bash",
    ]
    below = commands(*lines)
    image = await builder.build(spec(below, commands("RUN [[ a == a ]] && echo still > /still")), Log())
    assert read(image, "/exec") == "word\n"
    assert read(image, "/bash") == "ok\n"
    assert read(image, "/still") == "still\n"


async def test_a_secret_reaches_the_step_and_nothing_else(
    builder: BuildahBuilder, secrets: Secrets, data: Path
) -> None:
    value = f"s3cret '{fresh()}"
    secrets.known["st-1"] = {"TOKEN": value}
    line = 'RUN printf %s "$TOKEN" | sha256sum > /digest && cat /proc/*/cmdline | tr "\\0" " " > /arguments'
    log = Log()
    image = await builder.build(spec(commands(line, secret_ids=["st-1"])), log)
    assert len(read(image, "/digest").split()[0]) == 64
    part = value.split("'")[1]
    assert part not in log.text + read(image, "/arguments")
    for directory in (data / "images", data / "storage" / "images" / "overlay-images", data / "run"):
        for path in directory.rglob("*"):
            assert not path.is_file() or part.encode() not in path.read_bytes(), f"the secret is in {path}"
    for layer in image.layers[:2]:
        for path in layer.rglob("*"):
            assert not path.is_file() or part.encode() not in path.read_bytes(), f"the secret is in {path}"
    secrets.known["st-2"] = {"TOKEN": value}
    again = spec(commands(line, secret_ids=["st-2"]))
    assert builder.image_id(again) == image.image_id, "the same secret under another id is the same image"
    secrets.known["st-2"] = {"TOKEN": "other"}
    assert builder.image_id(again) != image.image_id


async def test_settings_of_the_host_are_used_but_not_kept(builder: BuildahBuilder) -> None:
    line = 'RUN test -n "$PIP_CONFIG_FILE" && test -r "$PIP_CONFIG_FILE" && test -r "$SSL_CERT_FILE" && touch /seen'
    image = await builder.build(spec(commands(line)), Log())
    assert set(image.env) == {"PATH", "LANG"}
    assert LayerTree(image.layers).find("/run/intermodal-variables/environment.sh") is None


async def test_an_image_can_be_extended_by_its_id(builder: BuildahBuilder) -> None:
    below = await builder.build(spec(commands("RUN echo below > /below")), Log())
    existing = ImageLayer(LayerKind.EXISTING, image_id=below.image_id)
    image = await builder.build(ImageSpec([existing, commands("RUN cat /below > /copy")]), Log())
    assert read(image, "/copy") == "below\n"
    with pytest.raises(NotFoundError, match="im-0000000000000000000000"):
        await builder.build(ImageSpec([ImageLayer(LayerKind.EXISTING, image_id="im-" + "0" * 22)]), Log())


async def test_an_unavailable_python_names_those_that_are(builder: BuildahBuilder) -> None:
    wanted = ImageSpec([ImageLayer(LayerKind.DEBIAN_SLIM, python_version="3.11.99")])
    with pytest.raises(InvalidError, match=r"3\.11\.99 is not available.*3\.11"):
        await builder.build(wanted, Log())


async def test_a_cancelled_build_leaves_no_process_and_can_be_repeated(builder: BuildahBuilder, data: Path) -> None:
    mark = fresh()
    wanted = spec(commands(f"RUN echo begun && sleep 987 && echo {mark}"))
    log = Log()
    build = asyncio.create_task(builder.build(wanted, log))
    await until(lambda: "begun" in log.text)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert processes_with(mark) == []
    assert await builder.get(builder.image_id(wanted)) is None
    quick = spec(commands(f"RUN echo {mark}"))
    await builder.build(quick, Log())


async def test_cancelling_one_of_two_callers_leaves_the_build_to_the_other(builder: BuildahBuilder) -> None:
    wanted = spec(commands(f"RUN echo begun {fresh()} && sleep 1 && echo done > /done"))
    log = Log()
    first = asyncio.create_task(builder.build(wanted, log))
    await until(lambda: "begun" in log.text)
    second = asyncio.create_task(builder.build(wanted, Log()))
    await asyncio.sleep(0)
    first.cancel()
    assert read(await second, "/done") == "done\n"


async def test_base_is_a_fixture_of_these_tests(builder: BuildahBuilder) -> None:
    image = await builder.build(ImageSpec([BASE]), Log())
    assert image.image_id == builder.image_id(ImageSpec([BASE]))


async def until(condition, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found
