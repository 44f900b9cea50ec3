"""`modal deploy`: make an app the next version of what is deployed under its name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Optional

import click

from .._output import create_output, output, using
from .env_option import env_option
from .import_app import AppReference, find_app, load_module
from .tables import utc_time

if TYPE_CHECKING:
    from .._wire.messages.app import AppPublished


@click.command("deploy")
@click.argument("app_ref", metavar="REF")
@click.option("--name", help="Name to deploy the app as; the app's own by default.")
@env_option
@click.option("--stream-logs/--no-stream-logs", help="Show the app's logs after it is deployed, until Ctrl-C.")
@click.option("--tag", default="", help="What to call this version.")
@click.option("-m", "is_module", is_flag=True, help="REF names a module (package.module::app), not a file.")
def deploy(app_ref: str, name: Optional[str], env: Optional[str], stream_logs: bool, tag: str, is_module: bool) -> None:
    """Deploy an app, so that it stays when this command has ended.

    REF is path/to/file.py::app or, with -m, package.module::app. Without ::app it is the app in the variable `app`, or
    else the only one.

    An app that is deployed under the same name already gets a new version: new calls run in new containers, and what
    runs is finished by the old ones. When anything fails, the version before stays in force.

    \b
    Examples:
      modal deploy service.py
      modal deploy service.py::app --name staging --tag v1.2
      modal deploy -m package.service
    """
    from .. import _sync
    from .run import interruptible, set_environment

    set_environment(env)
    reference = AppReference.parse(app_ref, is_module)
    app = find_app(load_module(reference), reference)
    began = time.monotonic()
    with using(create_output()), interruptible():
        try:
            published = _sync.run(_deploy(app, name, env, tag))
        except KeyboardInterrupt:
            click.echo(
                "\nInterrupted: what was deployed before stays in force, unless the deployment was complete already: "
                "`modal app history` tells.",
                err=True,
            )
            raise
        output().message(_summary(app, name or app.name, published, time.monotonic() - began))
    if stream_logs:
        from .app import follow

        _sync.run(follow(published.app_id, published.last_log))


async def _deploy(app: Any, name: Optional[str], env: Optional[str], tag: str) -> AppPublished:
    from .._deploying import deploy

    return await deploy(app, name, None, env, tag)


def _summary(app: Any, name: str, published: AppPublished, seconds: float) -> str:
    """What is deployed now and how to use it."""
    lines = [f"App {name} deployed in {seconds:.1f} s: version {published.version} ({published.app_id})."]
    classes = app.registered_classes
    for tag in published.functions:
        kind = "Cls" if tag in classes else "Function"
        due = f", next run {utc_time(published.next_runs[tag])}" if tag in published.next_runs else ""
        lines.append(f'  {tag}: modal.{kind}.from_name("{name}", "{tag}"){due}')
    if published.removed:
        lines.append(f"  No longer part of it: {', '.join(published.removed)}.")
    return "\n".join(lines)
