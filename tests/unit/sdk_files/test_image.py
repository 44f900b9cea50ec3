"""`modal.Image`: the chain, what it becomes on the wire, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from blob_server import BlobServer

from modal import _runtime_context
from modal._objects.image import Image
from modal._objects.image_layers import copy_sources, to_spec
from modal._wire.messages.image import ImageSpec, LayerKind, PipInstall
from modal.app import App
from modal.exception import DeprecationError, InvalidError, ModuleNotMountable
from modal.file_pattern_matcher import FilePatternMatcher
from modal.mount import Mount
from modal.secret import Secret


async def spec_of(image: Image, **options) -> ImageSpec:
    async def secret_id(secret: Secret) -> str:
        return f"st-{','.join(secret._env)}"

    return await to_spec(BlobServer(), image._layers, secret_id, **options)


async def last_layer(image: Image):
    return (await spec_of(image)).layers[-1]


def base() -> Image:
    return Image.debian_slim("3.12")


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


async def test_the_default_python_is_the_local_one_when_it_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    local = f"3.{sys.version_info[1]}"
    assert (await last_layer(Image.debian_slim())).python_version == local
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert (await last_layer(Image.debian_slim())).python_version == "3.12"


@pytest.mark.parametrize("version", ["3.7", "abc", "3.9", "3.14", "3", "", "3.11.4", 3.11, 3, "3.11 "])
def test_an_unavailable_python_is_an_error_that_names_the_others(version) -> None:
    with pytest.raises(InvalidError, match=r"not available; choose 3\.10, 3\.11, 3\.12, 3\.13"):
        Image.debian_slim(version)


async def test_steps_make_new_images_and_leave_the_old_ones() -> None:
    first = base()
    second = first.run_commands("true")
    third = first.run_commands("false")
    assert [len((await spec_of(image)).layers) for image in (first, second, third)] == [1, 2, 2]
    assert (await last_layer(second)).commands == ["RUN true"]


async def test_pip_install_carries_every_parameter() -> None:
    layer = await last_layer(
        base().pip_install(
            "numpy >= 1.26",
            ["scipy", "pandas[excel]; python_version < '4'"],
            find_links="https://a.example/links",
            index_url="https://b.example",
            extra_index_url="https://c.example",
            pre=True,
            extra_options="--no-build-isolation ",
            force_build=True,
            secrets=[Secret.from_dict({"TOKEN": "x"})],
            gpu="a100:2",
        )
    )
    assert layer.kind is LayerKind.PIP_INSTALL
    assert layer.pip == PipInstall(
        ["numpy >= 1.26", "scipy", "pandas[excel]; python_version < '4'"],
        *("https://a.example/links", "https://b.example", "https://c.example", True, "--no-build-isolation"),
    )
    assert (layer.force_build, layer.secret_ids, layer.gpu) == (True, ["st-TOKEN"], "A100-40GB:2")


@pytest.mark.parametrize("packages", [("",), (3,), (["a", 3],), ("-r x.txt",), ("a\nb",), (None,), ({"a": 1},)])
def test_a_bad_package_is_refused(packages) -> None:
    with pytest.raises(InvalidError, match="pip_install"):
        base().pip_install(*packages)


def test_nothing_to_do_adds_no_layer() -> None:
    image = base()
    assert image.pip_install() is image
    assert image.apt_install([]) is image
    assert image.run_commands() is image
    assert image.env({}) is image


async def test_apt_install_is_one_command() -> None:
    layer = await last_layer(base().apt_install("git", ["libpq-dev", "curl=7.88.1-10+deb12u5"]))
    assert layer.commands == [
        "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y git libpq-dev curl=7.88.1-10+deb12u5"
    ]
    for wrong in ("git; rm -rf /", "-o=x", "Git", "", "a b"):
        with pytest.raises(InvalidError):
            base().apt_install(wrong)


async def test_a_command_of_several_lines_is_one_script_of_the_current_shell() -> None:
    image = base().run_commands("a && \\\n  b", "set -e\necho hi")
    assert (await last_layer(image)).commands == [
        "RUN a && \\\n  b",
        'RUN ["/bin/sh", "-c", "set -e\\necho hi"]',
    ]
    image = base().shell(["/bin/bash", "-c"]).run_commands("one\ntwo", "[ -f /x ]")
    assert (await last_layer(image)).commands == [
        'RUN ["/bin/bash", "-c", "one\\ntwo"]',
        'RUN ["/bin/bash", "-c", "[ -f /x ]"]',
    ]


async def test_metadata_is_quoted() -> None:
    image = base().env({"A": "1", "B": 'it\'s $HOME \\ "x"'}).workdir("/a dir").entrypoint(["/x", "a b"])
    layers = (await spec_of(image)).layers
    assert layers[1].commands == ["ENV A=1 B='it'\"'\"'s $HOME \\ \"x\"'"]
    assert layers[2].commands == ["WORKDIR '/a dir'"]
    assert layers[3].commands == ['ENTRYPOINT ["/x", "a b"]']


@pytest.mark.parametrize(
    "step",
    [
        lambda image: image.env({"A": 1}),
        lambda image: image.env({"A B": "x"}),
        lambda image: image.env({"A": "x\ny"}),
        lambda image: image.workdir(""),
        lambda image: image.entrypoint("bash"),
        lambda image: image.shell([]),
        lambda image: image.run_commands(b"x"),
        lambda image: image.run_commands("x", secrets=["s"]),
        lambda image: image.run_commands("x", gpu="rtx"),
        lambda image: image.add_local_file("x", "relative"),
        lambda image: image.add_local_file("", "/x"),
        lambda image: image.add_local_dir("x", "/a/../b"),
        lambda image: image.add_local_python_source("a/b"),
        lambda image: Image.from_id("nonsense"),
        lambda image: Image(),
    ],
)
def test_a_bad_argument_is_refused_when_the_image_is_described(step) -> None:
    with pytest.raises(InvalidError):
        step(base())


async def test_force_build_reaches_the_spec() -> None:
    assert (await last_layer(Image.debian_slim(force_build=True))).force_build
    assert (await last_layer(base().run_commands("x", force_build=True))).force_build
    assert (await spec_of(base(), force_build=True)).force_build


async def test_files_that_are_not_copied_are_placed_at_start(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "d/b.py", "d/.venv/c.py", "d/e/f.txt")
    image = (
        base()
        .add_local_file(tmp_path / "a.txt", "/data/")
        .add_local_file(str(tmp_path / "a.txt"), "/other.txt")
        .add_local_dir(tmp_path / "d", "/d", ignore=lambda path: path.is_relative_to(".venv"))
    )
    assert len((await spec_of(image)).layers) == 1
    assert [file.remote_path for file in image._mount_files()] == ["/d/b.py", "/d/e/f.txt", "/data/a.txt", "/other.txt"]


@pytest.mark.parametrize("form", ["list", "matcher", "inverted", "callable", "file"])
async def test_every_form_of_ignore_works_copied_or_not(tmp_path: Path, form: str) -> None:
    write(tmp_path, "d/m.py", "d/n.txt", "d/e/o.txt")
    (tmp_path / "ignorefile").write_text("# text\n**/*.txt\n")
    ignore = {
        "list": ["**/*.txt"],
        "matcher": FilePatternMatcher("**/*.txt"),
        "inverted": ~FilePatternMatcher("**/*.py"),
        "callable": lambda path: path.suffix == ".txt",
        "file": FilePatternMatcher.from_file(tmp_path / "ignorefile"),
    }[form]
    mounted = base().add_local_dir(tmp_path / "d", "/x", ignore=ignore)
    assert [file.remote_path for file in mounted._mount_files()] == ["/x/m.py"]
    copied = await last_layer(base().add_local_dir(tmp_path / "d", "/x", copy=True, ignore=ignore))
    assert [entry.path for entry in copied.context] == ["m.py"]
    assert copied.commands == ['COPY [".", "/x/"]']


async def test_a_copied_file_is_a_layer(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    layer = await last_layer(base().add_local_file(tmp_path / "a.txt", "/data/b.txt", copy=True).run_commands("x"))
    assert layer.commands == ["RUN x"]
    layer = await last_layer(base().add_local_file(tmp_path / "a.txt", "/b.txt", copy=True))
    assert (layer.commands, [entry.path for entry in layer.context]) == (['COPY [".", "/"]'], ["b.txt"])


async def test_python_source_is_placed_below_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "d2pkg/__init__.py", "d2pkg/data.json", "d2pkg/.x.py", "d2single.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    image = base().add_local_python_source("d2pkg", "d2single")
    assert [file.remote_path for file in image._mount_files()] == ["/root/d2pkg/__init__.py", "/root/d2single.py"]
    layer = await last_layer(base().add_local_python_source("d2pkg", copy=True, ignore=["data.json"]))
    assert (layer.commands, [entry.path for entry in layer.context]) == (
        ['COPY [".", "/"]'],
        ["root/d2pkg/__init__.py"],
    )
    with pytest.raises(ModuleNotMountable, match="d2nothere"):
        base().add_local_python_source("d2nothere")._mount_files()


@pytest.mark.parametrize(
    "step",
    [
        lambda image: image.pip_install("x"),
        lambda image: image.apt_install("x"),
        lambda image: image.run_commands("x"),
        lambda image: image.env({"A": "1"}),
        lambda image: image.workdir("/x"),
        lambda image: image.add_local_file("x", "/y", copy=True),
        lambda image: image.dockerfile_commands("RUN x"),
    ],
)
def test_a_build_step_after_placed_files_says_to_copy(step) -> None:
    with pytest.raises(InvalidError, match="copy=True"):
        step(base().add_local_file("a", "/a"))


def test_placed_files_may_follow_one_another() -> None:
    base().add_local_file("a", "/a").add_local_dir("b", "/b").add_local_python_source("json")


async def test_missing_local_files_are_found_when_the_image_is_built(tmp_path: Path) -> None:
    image = base().add_local_file(tmp_path / "no", "/x", copy=True)
    with pytest.raises(InvalidError, match="does not exist"):
        await spec_of(image)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidError, match="no file to copy"):
        await spec_of(base().add_local_dir(tmp_path / "empty", "/x", copy=True))


async def test_a_relative_path_is_taken_from_where_the_image_was_described(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, "a.txt")
    monkeypatch.chdir(tmp_path)
    image = base().add_local_file("a.txt", "/a.txt")
    monkeypatch.chdir("/")
    assert image._mount_files()[0].path == tmp_path / "a.txt"


async def test_requirements_are_copied_and_installed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")
    image = base().pip_install_from_requirements(str(tmp_path / "requirements.txt"), extra_options="--no-deps")
    _, copy, install = (await spec_of(image)).layers
    assert copy.commands == ["COPY .requirements.txt /.requirements.txt"]
    assert [entry.path for entry in copy.context] == [".requirements.txt"]
    assert install.pip == PipInstall([], extra_options="-r /.requirements.txt --no-deps")


async def test_a_pyproject_gives_its_dependencies(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    image = base().pip_install_from_pyproject(str(path), ["test"])
    with pytest.raises(InvalidError, match="does not exist"):
        await spec_of(image)
    path.write_text('[project]\ndependencies = ["a>1"]\n[project.optional-dependencies]\ntest = ["b"]\n')
    assert (await last_layer(image)).pip == PipInstall(["a>1", "b"])
    with pytest.raises(InvalidError, match=r"no optional dependencies 'docs'; it has: test"):
        await spec_of(base().pip_install_from_pyproject(str(path), ["docs"]))
    path.write_text("[tool.x]\n")
    with pytest.raises(InvalidError, match="dependencies"):
        await spec_of(image)
    path.write_text("[")
    with pytest.raises(InvalidError, match="TOML"):
        await spec_of(image)


async def test_dockerfile_commands_send_what_copy_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "data/a.txt", "data/b.log", "x.py", "y.py", "unused")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    monkeypatch.chdir(tmp_path)
    layer = await last_layer(base().dockerfile_commands(["COPY --chown=1:1 data /data"], "ADD *.py /src/"))
    assert [entry.path for entry in layer.context] == ["data/a.txt", "x.py", "y.py"]
    layer = await last_layer(base().dockerfile_commands("COPY data /data", ignore=["**/a.txt"]))
    assert [entry.path for entry in layer.context] == ["data/b.log"]
    layer = await last_layer(base().dockerfile_commands("COPY f /f", context_files={"f": "x.py"}))
    assert [entry.path for entry in layer.context] == ["f"]
    assert (await last_layer(base().dockerfile_commands("RUN x"))).context == []
    with pytest.raises(InvalidError, match="no such file"):
        await spec_of(base().dockerfile_commands("COPY missing /x"))
    with pytest.raises(InvalidError, match="outside the build context"):
        await spec_of(base().dockerfile_commands("COPY ../secret /x"))


def test_copy_sources_are_read_from_instructions() -> None:
    commands = ['COPY ["a b", "c", "/x"]', "COPY --from=0 /bin/x /y", "ADD https://e.example/f /f", "copy a \\\n b /d/"]
    assert copy_sources(commands) == ("a b", "c", "a", "b")
    with pytest.raises(InvalidError, match="source and a destination"):
        copy_sources(["COPY a"])


async def test_deprecated_copies_still_work(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "d/b.txt")
    layer = await last_layer(base().copy_local_file(tmp_path / "a.txt"))
    assert (layer.commands, [entry.path for entry in layer.context]) == (['COPY [".", "./"]'], ["a.txt"])
    layer = await last_layer(base().copy_local_file(tmp_path / "a.txt", "/c.txt"))
    assert (layer.commands, [entry.path for entry in layer.context]) == (['COPY [".", "/"]'], ["c.txt"])
    with pytest.warns(DeprecationError):
        image = base().copy_local_dir(tmp_path / "d", "/x")
    assert (await last_layer(image)).commands == ['COPY [".", "/x/"]']
    with pytest.warns(DeprecationError):
        mount = Mount.from_local_dir(tmp_path / "d", remote_path="/")
    with pytest.warns(DeprecationError):
        image = base().copy_mount(mount, "/static")
    layer = await last_layer(image)
    assert (layer.commands, [entry.path for entry in layer.context]) == (['COPY [".", "/static/"]'], ["b.txt"])


async def test_an_existing_image_is_a_base() -> None:
    spec = await spec_of(Image.from_id("im-0123456789abcdefghijkl").run_commands("x"))
    assert [layer.kind for layer in spec.layers] == [LayerKind.EXISTING, LayerKind.COMMANDS]


def test_imports_hold_an_import_error_back_until_it_matters() -> None:
    image = base()
    with image.imports():
        import d2_no_such_module  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="d2_no_such_module"):
        image._enter_container()


def test_imports_raise_at_once_in_a_container_of_the_image() -> None:
    image = base()
    with image.imports():
        import json  # noqa: F401
    image._enter_container()
    with pytest.raises(ModuleNotFoundError, match="d2_no_such_module"), image.imports():
        import d2_no_such_module  # noqa: F401


def test_imports_hide_no_other_error() -> None:
    with pytest.raises(ZeroDivisionError), base().imports():
        _ = 1 / 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: Image.from_registry("x"), "from_registry"),
        (lambda: Image.from_dockerfile("x"), "from_dockerfile"),
        (lambda: Image.micromamba(), "micromamba"),
        (lambda: base().micromamba_install("x"), "micromamba_install"),
        (lambda: base().poetry_install_from_file("x"), "poetry_install_from_file"),
        (lambda: base().pip_install_private_repos("x", git_user="y"), "pip_install_private_repos"),
        (lambda: base().run_function(print), "run_function"),
        (lambda: Image.from_gcp_artifact_registry("x"), "from_gcp_artifact_registry"),
        (lambda: Image.from_aws_ecr("x"), "from_aws_ecr"),
    ],
)
def test_what_is_not_built_yet_names_itself(call, name: str) -> None:
    with pytest.raises(InvalidError, match=rf"modal\.Image\.{name} is not available"):
        call()


@pytest.mark.parametrize("own", [True, False])
def test_a_container_raises_the_import_errors_of_its_own_image_only(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    context = _runtime_context.ContainerContext(container_id="ta-1", function_name="f" if own else "other")
    monkeypatch.setattr(_runtime_context, "_container", context)
    app, image = App(), base()
    with image.imports():
        import d2_no_such_module  # noqa: F401

    def f() -> None: ...

    if own:
        with pytest.raises(ModuleNotFoundError, match="d2_no_such_module"):
            app.function(image=image, serialized=True)(f)
    else:
        app.function(image=image, serialized=True)(f)
