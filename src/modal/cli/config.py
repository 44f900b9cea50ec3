"""`modal config`: what the client is set to."""

from __future__ import annotations

import json

import click

from ..config import config as settings
from .lazy import LazyGroup
from .request import ask


@click.group("config", cls=LazyGroup)
def config() -> None:
    """Show and change the configuration of this machine's client."""


@config.command("show")
@click.option("--redact/--no-redact", default=True, show_default=True, help="Hide the token's secret.")
def show(redact: bool) -> None:
    """Print the configuration in force, as JSON."""
    values = dict(settings.to_dict())
    if redact and values.get("token_secret"):
        values["token_secret"] = "***"
    click.echo(json.dumps(values, indent=2, default=str))


@config.command("set-environment")
@click.argument("environment_name")
def set_environment(environment_name: str) -> None:
    """Make ENVIRONMENT_NAME the active profile's default environment. It must exist."""
    from .._wire.messages.environment import ENVIRONMENT_GET, EnvironmentRef
    from ..config import config_set_value

    ask(ENVIRONMENT_GET, EnvironmentRef(environment_name))
    config_set_value("environment", environment_name)
    click.echo(f"The default environment is `{environment_name}`.")
