from __future__ import annotations

import subprocess
import sys

import click
import pytest

from modal.cli.main import modal_cli, run_command_line

#: What users of this API expect to find, from the reference of the command line.
REFERENCE = """
deploy app_ref --name -e --env --stream-logs --no-stream-logs --tag -m
serve app_ref --timeout -e --env -m
shell container_or_function -c --cmd -e --env --image --add-python --volume --cpu --memory --gpu --cloud --region --pty
setup --profile
launch jupyter --cpu --memory --gpu --timeout --image --add-python --mount --volume --detach --no-detach
launch vscode --cpu --memory --gpu --image --timeout --mount --volume --detach --no-detach
app list -e --env --json --no-json
app logs app_identifier -n --name -e --env
app rollback app_identifier version -e --env
app stop app_identifier -n --name -e --env
app history app_identifier -e --env -n --name --json --no-json
container list -e --env --json --no-json
container logs container_id
container exec --pty --no-pty container_id command
container stop container_id
dict create name -e --env
dict list --json --no-json -e --env
dict clear name -y --yes -e --env
dict delete name -y --yes -e --env
dict get name key -e --env
dict items name n -a --all -r --repr --json --no-json -e --env
nfs list -e --env --json --no-json
nfs create name -e --env
nfs ls volume_name path -e --env
nfs put volume_name local_path remote_path -e --env
nfs get volume_name remote_path local_destination --force --no-force -e --env
nfs rm volume_name remote_path -r --recursive -e --env
nfs delete nfs_name -y --yes -e --env
secret list -e --env --json --no-json
secret create secret_name keyvalues -e --env --force
queue create name -e --env
queue delete name -y --yes -e --env
queue list --json --no-json -e --env
queue clear name -p --partition -a --all -y --yes -e --env
queue peek name n -p --partition -e --env
queue len name -p --partition -t --total -e --env
volume create name -e --env --version
volume get volume_name remote_path local_destination --force --no-force -e --env
volume list -e --env --json --no-json
volume ls volume_name path --json --no-json -e --env
volume put volume_name local_path remote_path -f --force -e --env
volume rm volume_name remote_path -r --recursive -e --env
volume cp volume_name paths -e --env
volume delete volume_name -y --yes -e --env
volume rename old_name new_name -y --yes -e --env
config show --redact --no-redact
config set-environment environment_name
environment list --json --no-json
environment create name
environment delete name --confirm --no-confirm
environment update current_name --set-name --set-web-suffix
profile activate profile
profile current
profile list --json --no-json
token set --token-id --token-secret --profile --activate --no-activate --verify --no-verify
token new --profile --activate --no-activate --verify --no-verify --source
run -w --write-result -q --quiet -d --detach -i --interactive -e --env -m
"""
LINES = [line.split() for line in REFERENCE.strip().splitlines()]


def words_of(line: list[str]) -> tuple[list[str], list[str]]:
    """The command's path, and its parameters."""
    depth = 2 if isinstance(find(line[:1]), click.Group) else 1
    return line[:depth], line[depth:]


def find(path: list[str]) -> click.Command:
    command: click.Command = modal_cli
    context = click.Context(command)
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None, f"no command {' '.join(path)}"
        command = found
    return command


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    found = [(" ".join(path), command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found += all_commands(child, (*path, name))
    return found


@pytest.mark.parametrize("line", LINES, ids=lambda line: "-".join(word for word in line[:2] if word[:1] != "-"))
def test_every_command_of_the_reference_exists_with_its_parameters(line):
    path, wanted = words_of(line)
    command = find(path)
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    if path != ["run"]:
        assert set(wanted) <= known
    else:
        assert set(wanted) <= known | {"ref"}


def test_every_command_and_option_has_help():
    for path, command in all_commands(modal_cli):
        assert command.help, f"{path} has no help"
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{path} {param.opts} has no help"


def test_a_command_that_is_not_there_yet_says_so(capsys):
    assert run_command_line(["launch", "jupyter"]) == 1
    assert capsys.readouterr().err == "Error: `modal launch jupyter` is not available in this version of Intermodal.\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["rnu"], "`modal` has no command `rnu`. Did you mean `run`?"), (["app", "lst"], "Did you mean `list`?")],
)
def test_an_unknown_command_gets_near_matches(arguments, sentence, capsys):
    assert run_command_line(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_the_version_is_shown(capsys):
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out.startswith("modal client version: ")


def test_help_imports_no_command():
    code = (
        "import sys; from modal.cli.main import run_command_line as r; c = r(['--help']);"
        "loaded = [m for m in sys.modules if m.startswith('modal.cli.')];"
        "print(c, sorted(loaded), 'rich' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run" in done.stdout
    assert done.stderr.strip() == "0 ['modal.cli.errors', 'modal.cli.lazy', 'modal.cli.main'] False"


GROUPS = [path for path, command in all_commands(modal_cli) if isinstance(command, click.Group)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda path: path or "modal")
def test_a_group_without_a_command_prints_its_help_as_an_error(group, capsys):
    assert run_command_line([*group.split(), "--help"]) == 0
    help_text = capsys.readouterr().out
    assert help_text.startswith("Usage: modal")
    assert run_command_line(group.split()) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", help_text)


def test_a_shell_completes_the_commands_of_a_group(monkeypatch, capsys):
    for name, value in {"_MODAL_COMPLETE": "zsh_complete", "COMP_WORDS": "modal queue ", "COMP_CWORD": "2"}.items():
        monkeypatch.setenv(name, value)
    assert run_command_line([]) == 0
    said = capsys.readouterr()
    assert "peek" in said.out.splitlines()
    assert said.err == ""
