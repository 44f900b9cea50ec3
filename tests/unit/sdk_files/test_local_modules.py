"""Which local modules travel, and where they go. Each case runs in a Python of its own, with its own sys.path."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from modal._local_modules import is_local

SOURCE = str(Path(__file__).parents[3] / "src")
PRELUDE = """
import json, sys
sys.path.insert(0, {source!r})
from pathlib import Path
from modal._local_modules import *
from modal._local_modules import EntryModule, LocalModule
def show(files): print(json.dumps({{file.remote_path: str(file.path) for file in files}}))
"""


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def python(cwd: Path, code: str, *, executable: str = sys.executable, check: bool = True):
    script = PRELUDE.format(source=SOURCE) + textwrap.dedent(code)
    result = subprocess.run(
        [executable, "-W", "error", "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    if check:
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    return result.stderr.strip().splitlines()[-1]


def test_a_script_and_the_modules_it_imported_travel(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "helper.py", "unused.py", "pkg/__init__.py", "pkg/a.py", "pkg/sub/b.py", "pkg/data.json")
    code = """
        import os, email, hypothesis, helper, pkg.a
        show(automount_entries(EntryModule("app", Path("app.py"))))
    """
    assert python(tmp_path, code) == {
        f"/root/{name}": str(tmp_path / name)
        for name in ("app.py", "helper.py", "pkg/__init__.py", "pkg/a.py", "pkg/sub/b.py")
    }


def test_without_automount_only_the_entry_travels(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "helper.py")
    code = 'import helper; show(automount_entries(EntryModule("app", Path("app.py")), automount=False))'
    assert list(python(tmp_path, code)) == ["/root/app.py"]


def test_a_module_of_a_package_brings_its_package(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/mod.py", "pkg/sub/__init__.py", "other.py")
    code = 'show(automount_entries(EntryModule("pkg.mod", Path("pkg/mod.py")), automount=False))'
    assert list(python(tmp_path, code)) == ["/root/pkg/__init__.py", "/root/pkg/mod.py", "/root/pkg/sub/__init__.py"]
    code = 'show(automount_entries(EntryModule("pkg.sub", Path("pkg/sub/__init__.py")), automount=False))'
    assert "/root/pkg/mod.py" in python(tmp_path, code)


def test_no_entry_file_sends_only_imports(tmp_path: Path) -> None:
    write(tmp_path, "helper.py")
    assert list(python(tmp_path, 'import helper; show(automount_entries(EntryModule("__main__", None)))')) == [
        "/root/helper.py"
    ]


def test_a_namespace_package_travels_without_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "one/space/a.py", "two/space/b.py", "site-packages/space/c.py")
    code = """
        sys.path[1:1] = [str(Path(name).absolute()) for name in ("one", "two", "site-packages")]
        import space.a, space.b, space.c
        show(automount_entries(None))
    """
    assert list(python(tmp_path, code)) == ["/root/space/a.py", "/root/space/b.py"]


def test_clutter_inside_a_package_stays(tmp_path: Path) -> None:
    write(
        tmp_path,
        *("pkg/__init__.py", "pkg/.hidden.py", "pkg/.git/x.py", "pkg/__pycache__/a.py", "pkg/node_modules/a.py"),
        *("pkg/env/pyvenv.cfg", "pkg/env/lib/x.py", "pkg/real.py"),
    )
    (tmp_path / "pkg" / "loop").symlink_to(tmp_path / "pkg")
    assert list(python(tmp_path, "import pkg; show(automount_entries(None))")) == [
        "/root/pkg/__init__.py",
        "/root/pkg/real.py",
    ]


def test_a_virtual_environment_is_not_local_but_an_editable_install_is(tmp_path: Path) -> None:
    environment = tmp_path / "project" / "env"
    venv.create(environment, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    write(site, "installed.py")
    write(tmp_path, "elsewhere/src/editable/__init__.py", "elsewhere/src/editable/core.py")
    (site / "editable.pth").write_text(f"{tmp_path}/elsewhere/src\n")
    write(environment, "src/checkout/__init__.py")
    code = """
        sys.path.insert(1, str(Path("env/src").absolute()))
        import installed, editable, checkout
        show(automount_entries(None))
    """
    files = python(tmp_path / "project", code, executable=str(environment / "bin" / "python"))
    assert list(files) == ["/root/editable/__init__.py", "/root/editable/core.py"]


def test_odd_modules_in_sys_modules_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "fine.py")
    code = """
        import types, fine
        class Hostile(types.ModuleType):
            def __getattr__(self, name): return 7
        for name, value in (("a", None), ("b", 3), ("c", Hostile("c")), ("d", types.ModuleType("d"))):
            sys.modules[name] = value
        gone = types.ModuleType("gone"); gone.__file__ = "/nonexistent/gone.py"; sys.modules["gone"] = gone
        so = types.ModuleType("so"); so.__file__ = str(Path("so.so")); sys.modules["so"] = so
        show(automount_entries(None))
    """
    assert list(python(tmp_path, code)) == ["/root/fine.py"]


def test_a_named_module_need_not_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "single.py", "pkg/__init__.py", "pkg/data.json", "pkg/x.pyc", "pkg/sub/__init__.py", "pkg/sub/m.py")
    assert list(python(tmp_path, 'show(python_source_files(["single", "pkg"], "/root"))')) == [
        "/root/pkg/__init__.py",
        "/root/pkg/sub/__init__.py",
        "/root/pkg/sub/m.py",
        "/root/single.py",
    ]
    code = 'show(python_source_files(["pkg"], "/srv", lambda path: path.parts[0] == "sub"))'
    assert list(python(tmp_path, code)) == ["/srv/pkg/__init__.py", "/srv/pkg/data.json"]


def test_a_submodule_brings_the_init_files_above_it(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/other.py", "pkg/sub/__init__.py", "pkg/sub/m.py")
    assert list(python(tmp_path, 'show(python_source_files(["pkg.sub.m"], "/root"))')) == [
        "/root/pkg/__init__.py",
        "/root/pkg/sub/__init__.py",
        "/root/pkg/sub/m.py",
    ]


@pytest.mark.parametrize(
    ("name", "message"), [("nothere", "is not found"), ("sys", "no Python source"), ("no/name", "is no module name")]
)
def test_a_module_that_cannot_travel_is_a_clear_error(tmp_path: Path, name: str, message: str) -> None:
    last = python(tmp_path, f"python_source_files([{name!r}], '/root')", check=False)
    assert last.startswith("modal.exception.ModuleNotMountable:")
    assert message in last


def test_modules_beside_the_script_that_stay_behind_are_known(tmp_path: Path) -> None:
    write(tmp_path, "src/app.py", "src/left.py", "src/pkg/__init__.py", "src/data/x.txt", "src/bad-name.py", "here.py")
    code = """
        entry = EntryModule("app", Path("src/app.py"))
        print(json.dumps(unsent_modules(entry, automount_entries(entry))))
    """
    assert python(tmp_path, code) == ["here", "left", "pkg"]
    code = """
        entry = EntryModule("pkg.mod", Path("src/pkg/mod.py"))
        print(json.dumps(unsent_modules(entry, [])))
    """
    assert python(tmp_path, code) == ["app", "here", "left", "pkg"]


def test_what_travels_is_described_for_people(tmp_path: Path) -> None:
    write(tmp_path, "app.py", "pkg/__init__.py", "pkg/a.py", "data/x")
    code = """
        import pkg
        from modal._local_files import LocalFile
        files = automount_entries(EntryModule("app", Path("app.py")))
        files.append(LocalFile(Path("data/x").absolute(), "/data/x"))
        print(json.dumps(describe_files(files)))
    """
    assert python(tmp_path, code) == [
        "/data/x from ./data/x",
        "/root/app.py from ./app.py",
        "/root/pkg/ (2 files) from ./pkg",
    ]


def test_a_module_of_the_standard_library_that_is_linked_elsewhere_is_not_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's sitecustomize.py is a link to /etc."""
    write(tmp_path, "etc/sitecustomize.py", "project/mine.py")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/sitecustomize.py").symlink_to("../etc/sitecustomize.py")
    (tmp_path / "project/linked.py").symlink_to("mine.py")
    monkeypatch.setattr("modal._local_modules._foreign_roots", lambda: {tmp_path / "lib"})
    assert not is_local(tmp_path / "lib/sitecustomize.py")
    assert is_local(tmp_path / "project/mine.py")
    assert is_local(tmp_path / "project/linked.py")
