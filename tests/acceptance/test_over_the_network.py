"""Programs of people who have a token, against the port of a server with real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from acceptance_harness import EXAMPLES, Platform, Program, wait_until

pytestmark = pytest.mark.e2e


class Person:
    """Someone with a token, elsewhere."""

    def __init__(self, platform: Platform, role: str) -> None:
        self._platform = platform
        made = platform.intermodal("token", "create", f"a {role}", "--role", role, "--json").succeeded()
        token = json.loads(made.out)
        self.token_id: str = token["token_id"]
        status = json.loads(platform.intermodal("status", "--json").succeeded().out)
        self.env = {
            "MODAL_SERVER_URL": status["url"],
            "MODAL_TOKEN_ID": self.token_id,
            "MODAL_TOKEN_SECRET": token["token_secret"],
        }

    def revoke(self) -> None:
        self._platform.intermodal("token", "revoke", self.token_id).succeeded()


@pytest.fixture
def member(platform: Platform) -> Iterator[Person]:
    person = Person(platform, "member")
    yield person
    person.revoke()


@pytest.fixture
def reader(platform: Platform) -> Iterator[Person]:
    person = Person(platform, "read-only")
    yield person
    person.revoke()


def test_a_member_runs_a_program_as_on_the_server_s_machine(platform: Platform, member: Person) -> None:
    ran = platform.modal("run", EXAMPLES / "hello.py", **member.env).succeeded()
    assert "map:    332833500" in ran.out
    assert "App completed." in ran.err
    listed = json.loads(platform.intermodal("token", "list", "--json").succeeded().out)
    assert [token["last_used_at"] is not None for token in listed if token["token_id"] == member.token_id] == [True]


def test_a_reader_looks_and_runs_nothing(platform: Platform, reader: Person) -> None:
    platform.modal("app", "list", **reader.env).succeeded()
    refused = platform.modal("run", EXAMPLES / "hello.py", **reader.env)
    refused.failed_with_one_sentence("The token is read-only", "Use a token with the role member")


def test_without_a_token_the_port_says_how_to_get_one(platform: Platform, member: Person) -> None:
    url = member.env["MODAL_SERVER_URL"]
    refused = platform.modal("run", EXAMPLES / "hello.py", MODAL_SERVER_URL=url)
    refused.failed_with_one_sentence("This server wants a token", "modal token set", "intermodal token create")


def test_a_revoked_token_ends_its_owner_s_program_and_its_containers(platform: Platform, program: Program) -> None:
    person = Person(platform, "member")
    file = program("""
        import time, modal

        app = modal.App()

        @app.function()
        def wait():
            print("waiting", flush=True)
            time.sleep(600)

        @app.local_entrypoint()
        def main():
            wait.remote()
    """)
    with platform.background("modal", "run", file, **person.env) as running:
        running.wait_for("waiting")
        person.revoke()
        ended = running.end()
    assert ended.code == 1, str(ended)
    assert "The token 'a member'" in ended.err
    assert "was revoked" in ended.err
    wait_until(lambda: not platform.containers(), "the container to be gone", 30)
