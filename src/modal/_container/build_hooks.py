"""The program of an image build step that runs the `@modal.build()` methods of a class.

It is given the path of a JSON file: the class's `source`, its `name`, and `methods` with the seconds each may take.
"""

# ruff: noqa: PTH100, PTH118, PTH120
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def _arrange_path() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sdk = os.path.dirname(os.path.dirname(here))
    vendor = os.path.join(os.path.dirname(sdk), "vendor")
    rest = [entry for entry in sys.path if os.path.abspath(entry) not in (here, sdk, vendor)]
    sys.path[:] = [sdk, *rest, vendor]


def main(path: str) -> int:
    """Run the methods in order; returns the exit status."""
    import json

    from modal._container import user_code
    from modal._objects import user_class
    from modal._runtime_context import ContainerContext, enter_container

    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    name = str(request["name"])
    enter_container(ContainerContext(container_id="build", function_name=name))
    sys.path.insert(1, str(request["root"]))
    try:
        cls = user_code.load_class(request["source"], memoryview(_body(str(request["body"]))))
    except user_code.LoadError as error:
        return _failed(error.message, error.cause)
    instance = user_class.make_instance(cls, (), {})
    for method, seconds in request["methods"].items():
        what = f"the build step {name}.{method}"
        try:
            _limit(what, float(seconds))
            result = user_class.marked(cls)[method].raw_f.__get__(instance, cls)()
            if hasattr(type(result), "__await__"):
                import asyncio

                asyncio.run(_awaited(result))
        except BaseException as exc:
            return _failed(f"{what[:1].upper()}{what[1:]} failed.", exc)
    return 0


def _body(path: str) -> bytes:
    if not path:
        return b""
    with open(path, "rb") as file:
        return file.read()


def _limit(what: str, seconds: float) -> None:
    """End the process when a method takes longer than that."""
    import signal

    def too_long(signum: int, frame: object) -> "NoReturn":
        raise TimeoutError(f"{what} took longer than its timeout of {seconds:g} seconds")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _failed(message: str, cause: "BaseException | None") -> int:
    from traceback import print_exception

    from modal._tracebacks import without_sdk_frames

    if cause is not None:
        print_exception(type(cause), cause, without_sdk_frames(cause.__traceback__))
    print(message, file=sys.stderr)
    return 1


async def _awaited(awaitable: "Any") -> None:
    await awaitable


if __name__ == "__main__":
    _arrange_path()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1]))
