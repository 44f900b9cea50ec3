"""Image ids and the specs that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intermodal.builder.graph import IMAGE_ID, chain
from modal._wire.messages.common import FileEntry
from modal._wire.messages.function import Source, SourceKind
from modal._wire.messages.image import BuildMethods, ImageLayer, ImageSpec, LayerKind, PipInstall
from modal.exception import InvalidError

BASE = ImageLayer(LayerKind.DEBIAN_SLIM, python_version="3.11")
COMMANDS = ImageLayer(LayerKind.COMMANDS, commands=["RUN true"])
PIP = ImageLayer(LayerKind.PIP_INSTALL, pip=PipInstall(["numpy"]))
EXISTING = ImageLayer(LayerKind.EXISTING, image_id="im-" + "a" * 22)
FILE = FileEntry("a/b.txt", "0" * 64, 3)


def ids(*layers: ImageLayer, **fingerprints: str) -> list[str]:
    return [link.image_id for link in chain(ImageSpec(list(layers)), fingerprints)]


def test_each_layer_has_an_id_of_its_own_and_builds_on_the_one_before() -> None:
    links = chain(ImageSpec([BASE, COMMANDS, PIP]))
    assert len({link.image_id for link in links}) == 3
    assert all(IMAGE_ID.match(link.image_id) for link in links)
    assert [link.parent_id for link in links] == ["", links[0].image_id, links[1].image_id]


def test_the_same_beginning_has_the_same_ids() -> None:
    other = replace(COMMANDS, commands=["RUN false"])
    assert ids(BASE, COMMANDS, PIP)[:2] == ids(BASE, COMMANDS)
    assert ids(BASE, COMMANDS)[0] == ids(BASE, other)[0]
    assert ids(BASE, COMMANDS)[1] != ids(BASE, other)[1]
    assert ids(BASE, COMMANDS, PIP)[2] != ids(BASE, other, PIP)[2]


@pytest.mark.parametrize(
    "changed",
    [
        replace(COMMANDS, gpu="T4"),
        replace(COMMANDS, commands=["RUN true", "RUN true"]),
        replace(COMMANDS, secret_ids=["st-1"]),
        replace(COMMANDS, context=[FILE]),
        replace(COMMANDS, context=[replace(FILE, mode=0o755)]),
    ],
)
def test_whatever_a_layer_is_made_of_changes_its_id(changed: ImageLayer) -> None:
    assert ids(BASE, changed)[1] != ids(BASE, COMMANDS)[1]


def test_forcing_does_not_change_ids_and_reaches_all_layers_above() -> None:
    links = chain(ImageSpec([BASE, replace(COMMANDS, force_build=True), PIP]))
    assert [link.image_id for link in links] == ids(BASE, COMMANDS, PIP)
    assert [link.forced for link in links] == [False, True, True]
    assert all(link.forced for link in chain(ImageSpec([BASE, COMMANDS], force_build=True)))
    assert not chain(ImageSpec([EXISTING], force_build=True))[0].forced


def test_a_secret_counts_by_its_content() -> None:
    first, second = replace(COMMANDS, secret_ids=["a"]), replace(COMMANDS, secret_ids=["b"])
    assert ids(BASE, first, a="x") == ids(BASE, second, b="x")
    assert ids(BASE, first, a="x") != ids(BASE, first, a="y")


def test_the_order_of_context_files_does_not_matter() -> None:
    other = replace(FILE, path="z")
    assert ids(BASE, replace(COMMANDS, context=[FILE, other])) == ids(BASE, replace(COMMANDS, context=[other, FILE]))


def test_an_existing_image_keeps_its_id() -> None:
    links = chain(ImageSpec([EXISTING, COMMANDS]))
    assert links[0].image_id == EXISTING.image_id
    assert links[1].parent_id == EXISTING.image_id


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([], "at least one layer"),
        ([COMMANDS], "has no base"),
        ([BASE, BASE], "base .debian_slim. above"),
        ([BASE, EXISTING], "base .existing. above"),
        ([replace(BASE, python_version="three")], "not a Python version"),
        ([replace(BASE, python_version="3.11; rm -rf /")], "not a Python version"),
        ([replace(BASE, python_version="")], "not a Python version"),
        ([replace(EXISTING, image_id="../im")], "not an image id"),
        ([replace(EXISTING, image_id=EXISTING.image_id + "\n")], "not an image id"),
        ([BASE, replace(COMMANDS, commands=[])], "empty"),
        ([BASE, replace(COMMANDS, secret_ids=[""])], "not a secret id"),
        ([BASE, replace(PIP, pip=None)], "does not say what to install"),
        ([BASE, replace(PIP, pip=PipInstall())], "at least one package"),
        ([BASE, replace(PIP, pip=PipInstall([" "]))], "empty package name"),
        ([BASE, replace(PIP, pip=PipInstall(["a\nRUN evil"]))], "line break"),
        ([BASE, replace(PIP, pip=PipInstall(["a"], index_url="x\ny"))], "line break"),
        ([BASE, replace(PIP, pip=PipInstall(["--index-url=evil"]))], "extra_options"),
        ([BASE] + [COMMANDS] * 200, "201 layers"),
    ],
)
def test_specs_that_can_never_build_are_refused(layers: list[ImageLayer], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        chain(ImageSpec(layers))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", ".", "..", "a\nb", "a\x00b"]
)
def test_context_paths_that_are_not_plain_are_refused(path: str) -> None:
    with pytest.raises(InvalidError):
        chain(ImageSpec([BASE, replace(COMMANDS, context=[replace(FILE, path=path)])]))


@pytest.mark.parametrize(
    "context",
    [
        [FILE, FILE],
        [FILE, replace(FILE, path="a")],
        [replace(FILE, digest="../../x")],
        [replace(FILE, digest="A" * 64)],
        [replace(FILE, mode=-1)],
        [replace(FILE, mode=0o10000)],
    ],
)
def test_context_files_that_clash_or_make_no_sense_are_refused(context: list[FileEntry]) -> None:
    with pytest.raises(InvalidError):
        chain(ImageSpec([BASE, replace(COMMANDS, context=context)]))


def step(**changes: object) -> ImageLayer:
    source = Source(SourceKind.FILE, "app", "Model", "/root/app.py")
    build = BuildMethods("Model", source, {"download": 60.0}, "a" * 64, files=[FileEntry("app.py", "0" * 64, 3)])
    return ImageLayer(LayerKind.BUILD_METHODS, build=replace(build, **changes))  # type: ignore[arg-type]


def test_build_methods_are_known_by_their_code_and_not_by_the_files_around_it() -> None:
    one = ids(BASE, step())
    assert ids(BASE, step(files=[FileEntry("app.py", "1" * 64, 9), FILE])) == one
    assert ids(BASE, step(methods={"download": 99.0})) == one
    for changes in ({"identity": "b" * 64}, {"name": "Other"}, {"methods": {"fetch": 60.0}}):
        assert ids(BASE, step(**changes))[1] != one[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": {}}, "does not say what to run"),
        ({"methods": {"a b": 1.0}}, "names that are none"),
        ({"name": "x; reboot"}, "names that are none"),
        ({"identity": "; reboot"}, "no valid identity"),
        ({"methods": {"download": 0.0}}, "timeout of a build method"),
        ({"files": [replace(FILE, path="../x")]}, "leaves the context"),
        ({"body": "class.pickle"}, "was not sent"),
    ],
)
def test_build_methods_that_no_sdk_sends_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        chain(ImageSpec([BASE, step(**changes)]))
