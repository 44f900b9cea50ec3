"""No request is served without asking who sent it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

from modal._wire import messages
from modal._wire.messages.common import Method, Shape

CONTROL = Path(__file__).parents[2] / "src/intermodal/control"
CHECKS = {"require_app", "require_use", "require_user", "require_admin", "require_own_environment", "require_container"}
#: Methods of other objects that check the caller.
CHECKING_METHODS = {"meant_by", "require_object", "find_for"}

#: Handlers that any caller may use, and why.
OPEN = {
    "ServerService.info": "says nothing that a caller could not find out",
    "TokenService.identity": "says who the caller is",
    "BlobService.missing": "a digest gives nothing away but that its content exists",
    "BlobService.put": "adds bytes under their own digest, within a size limit",
    "BlobService.get": "knowing the digest is what entitles to the bytes",
    "MountService.create": "names blobs that the caller knows by digest",
    "ImageService.get": "an image id is a hash of what the caller describes",
}


def handlers(tree: ast.Module) -> list[tuple[str, ast.ClassDef, str]]:
    """Class name, class and handler name of everything registered with a dispatcher."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register":
                    if len(call.args) == 2 and isinstance(call.args[1], ast.Attribute):
                        found.append((node.name, node, call.args[1].attr))
    return found


def names_called(owner: ast.ClassDef, method: str, seen: set[str]) -> set[str]:
    """Every function that a method calls, through the class's own methods too."""
    seen.add(method)
    called: set[str] = set()
    for node in owner.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == method:
            for call in ast.walk(node):
                if isinstance(call, ast.Call):
                    if isinstance(call.func, ast.Name):
                        called.add(call.func.id)
                    elif isinstance(call.func, ast.Attribute) and call.func.attr in CHECKING_METHODS:
                        called.add(call.func.attr)
                    elif isinstance(call.func, ast.Attribute) and call.func.attr not in seen:
                        called |= names_called(owner, call.func.attr, seen)
    return called


def test_every_handler_checks_its_caller_or_is_open_for_a_reason() -> None:
    unchecked = set()
    count = 0
    for path in sorted(CONTROL.glob("*_service.py")):
        for name, owner, method in handlers(ast.parse(path.read_text())):
            count += 1
            if not (CHECKS | CHECKING_METHODS) & names_called(owner, method, set()):
                unchecked.add(f"{name}.{method}")
    assert unchecked == set(OPEN)
    assert count >= 20


def test_whatever_takes_a_stream_from_its_caller_counts_as_a_change() -> None:
    """Callers that may only read are refused by `mutating` alone."""
    found = 0
    for module in pkgutil.iter_modules(messages.__path__):
        for method in vars(importlib.import_module(f"{messages.__name__}.{module.name}")).values():
            if isinstance(method, Method):
                found += 1
                assert method.mutating or method.shape in (Shape.UNARY, Shape.SERVER_STREAM), method.name
    assert found >= 20
