"""`modal profile`: sections of the configuration file, one of which is active."""

from __future__ import annotations

import os

import click

from ..config import config, config_profiles, config_set_active_profile, current_profile
from .errors import CliError, near_matches
from .lazy import LazyGroup
from .tables import print_table


@click.group("profile", cls=LazyGroup)
def profile_group() -> None:
    """Switch between profiles of the configuration."""


@profile_group.command("current")
def current() -> None:
    """Print the active profile."""
    click.echo(current_profile())


@profile_group.command("list")
@click.option("--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table.")
def list_profiles(as_json: bool) -> None:
    """List the profiles in the configuration file."""
    active = current_profile()
    names = sorted({*config_profiles(), active})
    if as_json:
        rows = [[name, "true" if name == active else "false", _server_of(name)] for name in names]
        print_table(["Name", "Active", "Server"], rows, True)
    else:
        rows = [["*" if name == active else "", name, _server_of(name)] for name in names]
        print_table(["", "Profile", "Server"], rows, False)


def _server_of(profile: str) -> str:
    return str(config.get("server_url", profile=profile, use_env=False) or "(local)")


@profile_group.command("activate")
@click.argument("profile")
def activate(profile: str) -> None:
    """Make PROFILE the active one."""
    known = list(config_profiles())
    if profile not in known:
        hint = near_matches(profile, known) or "Store a token for it first."
        raise CliError(f"There is no profile `{profile}` in the configuration file. {hint}")
    config_set_active_profile(profile)
    click.echo(f"The active profile is `{profile}`.")
    if os.environ.get("MODAL_PROFILE", profile) != profile:
        click.echo(f"MODAL_PROFILE is set, so that `{os.environ['MODAL_PROFILE']}` is in use here.", err=True)
