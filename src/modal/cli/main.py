"""`modal`: the command line. Each command's module is imported when the command is used."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Optional

import click

from .errors import CliError, UserTraceback, wants_traceback
from .lazy import LazyCommand, LazyGroup

INTERRUPTED = 130  #: exit code after Ctrl-C, as shells have it

_REAL = {
    "run": LazyCommand("Run a function or local entrypoint of an app.", "modal.cli.run", "run"),
    "deploy": LazyCommand("Deploy an app, so that it stays.", "modal.cli.deploy", "deploy"),
    "app": LazyCommand("Manage apps.", "modal.cli.app", "app_group"),
    "container": LazyCommand("Look into running containers.", "modal.cli.container", "container_group"),
    "config": LazyCommand("Show and change the configuration of this machine's client.", "modal.cli.config", "config"),
    "environment": LazyCommand("Manage environments.", "modal.cli.environment", "environment_group"),
    "dict": LazyCommand("Manage dicts.", "modal.cli.dict", "dict_group"),
    "nfs": LazyCommand("Manage network file systems.", "modal.cli.nfs", "nfs_group"),
    "volume": LazyCommand("Manage volumes.", "modal.cli.volume", "volume_group"),
    "queue": LazyCommand("Manage queues.", "modal.cli.queue", "queue_group"),
    "setup": LazyCommand("Set up this machine's client.", "modal.cli.token", "setup"),
    "token": LazyCommand("Store tokens, which open servers over the network.", "modal.cli.token", "token_group"),
    "secret": LazyCommand("Manage secrets.", "modal.cli.secret", "secret_group"),
    "profile": LazyCommand("Switch between profiles of the configuration.", "modal.cli.profile", "profile_group"),
}
_LATER = {
    "serve": "Run an app's web endpoints while its code changes.",
    "shell": "Open a shell or run a command in a container.",
    "launch": "Start a notebook or an editor in a container.",
}


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import importlib.metadata

    click.echo(f"modal client version: {importlib.metadata.version('intermodal')}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    entries={**_REAL, **{name: LazyCommand(text, "modal.cli.later", "later_command") for name, text in _LATER.items()}},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def modal_cli() -> None:
    """Run Python functions in containers on machines you own."""


def main(args: Optional[Sequence[str]] = None) -> None:
    """Run the command line and exit the process with its code."""
    sys.exit(run_command_line(args))


def run_command_line(args: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit code. All errors are reported on stderr."""
    try:
        result = modal_cli.main(args=None if args is None else list(args), prog_name="modal", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SystemExit as error:
        return _exit_code(error)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BaseException as error:
        if (
            isinstance(error.__cause__ if isinstance(error, UserTraceback) else error, BrokenPipeError)
            and _reader_is_gone()
        ):
            _silence_stdout()
            return 1
        return report(error)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong, as briefly as it can be understood; return the exit code."""
    from ..exception import ConnectionError, Error
    from .tracebacks import format_user_traceback, has_user_frames

    if wants_traceback() and not isinstance(error, click.exceptions.Exit):
        traceback.print_exception(type(error), error, error.__traceback__)
        return getattr(error, "exit_code", 1)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, UserTraceback) and error.__cause__ is not None:
        cause = error.__cause__
        # That the server is gone is no fault of the line that happened to wait for it.
        if isinstance(cause, ConnectionError) or (isinstance(cause, Error) and not has_user_frames(cause)):
            click.echo(f"Error: {cause}", err=True)
        else:
            click.echo(format_user_traceback(cause), err=True, nl=False)
            if not has_user_frames(cause):
                click.echo("Set MODAL_TRACEBACK=1 to see where it comes from.", err=True)
        return 1
    if isinstance(error, click.ClickException):
        click.echo(f"Error: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try `{error.ctx.command_path} --help`.", err=True)
        return error.exit_code
    if isinstance(error, Error):
        click.echo(f"Error: {error}", err=True)
        return 1
    hint = "Set MODAL_TRACEBACK=1 to see where it comes from."
    click.echo(f"Error: unexpected {type(error).__name__}: {error}. {hint}", err=True)
    return 1


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    click.echo(error.code, err=True)
    return 1


def _reader_is_gone() -> bool:
    """Whether the other end of stdout is closed, as after `| head`: nothing to tell anyone."""
    import select

    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _silence_stdout() -> None:
    """Keep the interpreter from failing once more when it flushes stdout at exit."""
    import os

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


__all__ = ["CliError", "main", "modal_cli", "run_command_line"]

if __name__ == "__main__":
    main()
