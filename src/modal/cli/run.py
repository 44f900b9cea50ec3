"""`modal run`: run an entrypoint of an app, with its parameters as options."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import click

from .._output import create_output, using
from .._running import Terminated
from .errors import CliError, UserTraceback
from .import_app import AppReference, Runnable, find_runnable, load_module
from .options import EntrypointArguments, EntrypointCommand, build_parameters, collect_arguments, short_help


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option(
    "-w",
    "--write-result",
    metavar="PATH",
    help="Write the entrypoint's return value, which must be str or bytes, to this local file.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show only the output of user code, and errors.")
@click.option("-d", "--detach", is_flag=True, help="Let the app go on when this client stops or disconnects.")
@click.option(
    "-i", "--interactive", is_flag=True, help="Let containers use this terminal: modal.interact(), breakpoint()."
)
@click.option(
    "-e",
    "--env",
    metavar="NAME",
    envvar="MODAL_ENVIRONMENT",
    help="Environment to run in; the one of the active profile by default. [env: MODAL_ENVIRONMENT]",
)
@click.option("-m", "is_module", is_flag=True, help="REF names a module (package.module::function), not a file.")
@click.option("--show-files", is_flag=True, help="List every local file that is sent to the containers.")
@click.argument("ref", metavar="REF")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE ENTRYPOINT]...")
@click.pass_context
def run(
    ctx: click.Context,
    ref: str,
    arguments: tuple[str, ...],
    write_result: Optional[str],
    quiet: bool,
    detach: bool,
    interactive: bool,
    env: Optional[str],
    is_module: bool,
    show_files: bool,
) -> None:
    """Run a function or local entrypoint of an app.

    REF is path/to/file.py::function, path/to/file.py::app.function, or, with -m, package.module::function. Without
    ::function it is the app's only local entrypoint, or else its only function.

    A local entrypoint runs in this process and calls functions that run in containers; a function named here runs in
    a container, and what it returns is printed. What follows REF are options of the entrypoint, made from its
    parameters: `modal run REF --help` lists them.

    A line says which local files are sent to the containers; --show-files lists each.

    \b
    Examples:
      modal run hello.py
      modal run hello.py::main --max-models 10
      modal run -m package.hello::app.main
    """
    destination = _check_destination(write_result) if write_result else None
    set_environment(env)
    reference = AppReference.parse(ref, is_module)
    runnable = find_runnable(load_module(reference), reference)
    values = _parse_arguments(ctx, reference, runnable, list(arguments))
    if runnable.app.description is None:
        runnable.app.set_description(Path(reference.target).name)
    with using(create_output(show_progress=not quiet, show_files=show_files)):
        result = _run_app(runnable, values, detach, interactive, env)
    if destination is not None:
        _write_result(destination, result)
    elif not runnable.is_local and result is not None:
        click.echo(result if isinstance(result, (str, bytes)) else repr(result))


def set_environment(name: Optional[str]) -> None:
    if name:
        from ..config import config

        config.override_locally("environment", name)


def _parse_arguments(
    ctx: click.Context, reference: AppReference, runnable: Runnable, arguments: list[str]
) -> EntrypointArguments:
    """Parse what follows the reference; `--help` prints the entrypoint's options and exits."""
    function = runnable.raw_function
    command = EntrypointCommand(runnable.name, params=build_parameters(function), help=short_help(function))
    command.run_options = frozenset(opt for param in ctx.command.params for opt in param.opts if opt.startswith("-"))
    flag = "-m " if reference.is_module else ""
    name = f"{ctx.info_name} {flag}{reference.target}::{runnable.name}"
    inner = command.make_context(name, arguments, parent=ctx.parent)
    return collect_arguments(function, inner.params)


def _run_app(
    runnable: Runnable, values: EntrypointArguments, detach: bool, interactive: bool, env: Optional[str]
) -> Any:
    """Run the entrypoint inside a running app.

    Raises:
        UserTraceback: the entrypoint or the function raised.
    """
    raised: Optional[Exception] = None
    started = False
    try:
        with interruptible(), runnable.app.run(detach=detach, interactive=interactive, environment_name=env):
            started = True
            try:
                return _call(runnable, values)
            except KeyboardInterrupt:
                _say_interrupted(runnable, detach)
                raise
            except Terminated:
                if detach:
                    _say_interrupted(runnable, detach)
                raise
            except Exception as error:
                raised = error
                raise
    except Exception as error:
        if error is raised:
            raise UserTraceback(runnable.name) from error
        raise
    except KeyboardInterrupt:
        if not started:
            click.echo("\nInterrupted: the app was not started; what was being built for it has stopped.", err=True)
        raise


def _call(runnable: Runnable, values: EntrypointArguments) -> Any:
    if runnable.is_local:
        result = runnable.target(*values.args, **values.kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    if getattr(runnable.target, "is_generator", False):
        for item in runnable.target.remote_gen(*values.args, **values.kwargs):
            click.echo(item if isinstance(item, (str, bytes)) else repr(item))
        return None
    return runnable.target.remote(*values.args, **values.kwargs)


def _say_interrupted(runnable: Runnable, detach: bool) -> None:
    # Said even with --quiet: someone pressed a key and waits for an answer.
    if detach:
        click.echo(f"\nInterrupted: the app {runnable.app.app_id} goes on running, detached.", err=True)
    else:
        click.echo("\nInterrupted: stopping the app and its containers (Ctrl-C again to leave at once).", err=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt, so that the app is stopped; a second one ends the process at once.

    SIGTERM ends the program in order, like `sys.exit`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = 0

    def on_interrupt(signum: int, frame: Optional[FrameType]) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            raise KeyboardInterrupt
        # No locks here: the code that was interrupted may hold them.
        os.write(2, b"\nLeft at once; the server stops the app when it misses this client.\n")
        os._exit(130)

    def on_terminate(signum: int, frame: Optional[FrameType]) -> None:
        raise Terminated(128 + signum)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_destination(text: str) -> Path:
    """Refuse a result file that cannot be written before anything runs for it."""
    path = Path(text)
    if path.is_dir():
        raise CliError(f"--write-result: {text} is a directory: name a file in it.", 2)
    if not path.parent.is_dir():
        raise CliError(f"--write-result: the directory {path.parent} does not exist.", 2)
    if not os.access(path.parent, os.W_OK):
        raise CliError(f"--write-result: the directory {path.parent} cannot be written to.", 2)
    return path


def _write_result(path: Path, result: Any) -> None:
    """Replace `path` with the result in one step, so that nobody ever sees half of it."""
    if isinstance(result, str):
        data = result.encode()
    elif isinstance(result, bytes):
        data = result
    else:
        raise CliError(
            f"--write-result needs an entrypoint that returns str or bytes, but it returned {type(result).__name__}; "
            f"{path} was not written."
        )
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink()
        raise CliError(f"--write-result: {path} could not be written: {error.strerror}.") from error
