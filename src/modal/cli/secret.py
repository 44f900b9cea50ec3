"""`modal secret`: environment variables under a name, kept by the server. No command shows a value."""

from __future__ import annotations

from typing import Optional

import click

from .._wire.messages.secret import SECRET_LIST, SECRET_PUT, SecretEnvironment, SecretPut
from .env_option import env_option, environment_in_force
from .lazy import LazyGroup
from .request import ask
from .tables import print_table, utc_time


@click.group("secret", cls=LazyGroup)
def secret_group() -> None:
    """Manage secrets."""


@secret_group.command("list")
@env_option
@click.option("--json/--no-json", "as_json", default=False, help="Print JSON for programs instead of a table.")
def list_secrets(env: Optional[str], as_json: bool) -> None:
    """List the secrets of an environment: their names, never their values."""
    found = ask(SECRET_LIST, SecretEnvironment(environment_in_force(env)))
    rows = [[one.name, utc_time(one.created_at), utc_time(one.last_used_at) or "-"] for one in found.secrets]
    print_table(["Name", "Created at", "Last used at"], rows, as_json)


@secret_group.command("create")
@click.argument("secret_name")
@click.argument("keyvalues", nargs=-1, required=True, metavar="KEY=VALUE...")
@env_option
@click.option("--force", is_flag=True, help="Replace all variables of a secret that exists.")
def create(secret_name: str, keyvalues: tuple[str, ...], env: Optional[str], force: bool) -> None:
    """Create the secret SECRET_NAME from KEY=VALUE pairs.

    Code gets them as environment variables with modal.Secret.from_name("SECRET_NAME").
    """
    environment = environment_in_force(env)
    ask(SECRET_PUT, SecretPut(secret_name, environment, _variables(keyvalues), force))
    click.echo(f"The secret `{secret_name}` is stored in the environment `{environment}`. Use it in code with:")
    click.echo(f'    @app.function(secrets=[modal.Secret.from_name("{secret_name}")])')


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """The variables of KEY=VALUE pairs. No message holds a value, or what might be one."""
    variables: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"Argument {number} after the secret's name is not of the form KEY=VALUE.")
        if key in variables:
            raise click.UsageError(f"The key {key} is given twice.")
        variables[key] = value
    return variables
