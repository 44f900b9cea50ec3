"""The option `-e/--env` that every command about named things has."""

from __future__ import annotations

from typing import Optional

import click

env_option = click.option("-e", "--env", help="Environment; the one of the active profile by default.")


def environment_in_force(env: Optional[str]) -> str:
    """The environment that a command means: that of `--env`, else that of the configuration."""
    from ..config import config

    return env or str(config.get("environment"))
