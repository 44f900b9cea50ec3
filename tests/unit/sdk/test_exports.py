"""What `import modal` gives, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modal


def test_every_exported_name_can_be_had() -> None:
    for name in modal.__all__:
        assert getattr(modal, name) is not None
    assert set(modal.__all__) <= set(dir(modal))
    for name in modal._MODULES:
        assert getattr(modal, name).__name__ == f"modal.{name}"
    with pytest.raises(AttributeError, match="nothing"):
        _ = modal.nothing


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(modal.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(modal.__all__) - {"__version__"} == set(modal._HOMES)


def test_an_app_with_a_function_loads_neither_asyncio_nor_third_parties(tmp_path: Path) -> None:
    script = tmp_path / "light.py"
    script.write_text(
        "import sys, modal\n"
        "app = modal.App('x', image=modal.Image.debian_slim())\n"
        "@app.function()\n"
        "def f(): pass\n"
        "print([m for m in ('click', 'rich', 'websockets', 'ssl', 'cloudpickle') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
