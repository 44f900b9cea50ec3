"""The rules of docs/architecture.md that a machine can hold."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PURE = [path for path in SOURCES if path.parts[-2] in ("model", "machines", "scheduling")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_short_and_its_functions_fit_a_screen(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 800
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 120, f"{node.name} is too long"


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_pure_code_has_no_clock_and_no_randomness(path: Path) -> None:
    forbidden = {"time", "random", "asyncio", "socket", "subprocess", "threading", "secrets"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("datetime", "date"):
            # Its calendar is pure, its clock is not.
            assert node.attr not in ("now", "utcnow", "today"), f"line {node.lineno}"
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        assert not forbidden.intersection(names), f"line {node.lineno}"


def test_importing_the_sdk_loads_no_third_party_module_and_no_asyncio() -> None:
    code = "import sys, json; old = set(sys.modules); import modal; print(json.dumps(sorted(set(sys.modules) - old)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in json.loads(done.stdout)}
    third_party = roots - set(sys.stdlib_module_names) - {"modal", "cloudpickle"}
    assert third_party == set()
    assert "asyncio" not in roots


def test_public_exports_equal_all() -> None:
    import modal

    for name in modal.__all__:
        assert getattr(modal, name) is not None
    assert sorted(modal.__all__) == sorted(set(modal.__all__))
    assert set(modal.__all__) <= set(dir(modal))
