"""Deployed apps as their users meet them: deploy, call from elsewhere, deploy again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from deploy_server import Users
from killable_server import until

import modal
from modal.exception import InvalidError, NotFoundError
from modal.runner import deploy_app

SERVICE = """
    import modal

    app = modal.App("service")

    @app.function()
    def square(x: int):
        return x * x

    @app.function()
    def count(n: int):
        yield from range(n)
"""


def versioned(number: int, image: modal.Image, **options: Any) -> modal.App:
    """An app whose functions say which version they are of."""
    app = modal.App("versioned", image=image)

    def which(marks: str = "", gate: str = "") -> int:
        import os
        import time

        if marks:
            open(f"{marks}/began-{number}", "w").close()
        while gate and not os.path.exists(gate):
            time.sleep(0.01)
        return number

    app.function(serialized=True, name="which", **options)(which)
    return app


def history(users: Users, name: str) -> list[dict[str, Any]]:
    return list(reversed(users.listed("app", "history", name)))


def test_a_deployed_app_is_called_from_other_processes(users: Users) -> None:
    said = users.deploy(SERVICE)
    assert "App service deployed" in said
    assert "version 1" in said
    assert 'square: modal.Function.from_name("service", "square")' in said
    answers = users.python("""
        import json, modal
        square = modal.Function.from_name("service", "square")
        count = modal.Function.lookup("service", "count")
        print(json.dumps([
            square.remote(7), list(square.map(range(50))), square.spawn(3).get(), list(count.remote_gen(4)),
            list(square.starmap([(5,)])), count.is_generator, modal.Function.from_name("service", "count").is_generator,
            square.hydrate().object_id[:3], modal.App.lookup("service").app_id[:3],
        ]))
    """)
    squares = [x * x for x in range(50)]
    assert answers == [49, squares, 9, [0, 1, 2, 3], [25], True, True, "fu-", "ap-"]


def test_what_does_not_exist_is_said_with_what_does(users: Users) -> None:
    users.deploy(SERVICE)
    with pytest.raises(NotFoundError, match="no function or class 'sqare'; it has 'count', 'square'"):
        modal.Function.from_name("service", "sqare").remote(1)
    with pytest.raises(NotFoundError, match=r"No app 'servce' is deployed.*deployed there: 'service'"):
        modal.Function.lookup("servce", "square")
    with pytest.raises(NotFoundError, match="No app 'servce'"):
        modal.App.lookup("servce")
    with pytest.raises(InvalidError, match="is a generator: call it with remote_gen"):
        modal.Function.from_name("service", "count").remote(1)
    with pytest.raises(InvalidError, match="must be a string"):
        modal.Function.from_name("service", 3)  # type: ignore[arg-type]


def test_new_calls_run_the_new_version_while_what_runs_ends_on_the_old_one(
    users: Users, image: modal.Image, tmp_path: Path
) -> None:
    deploy_app(versioned(1, image))
    which = modal.Function.lookup("versioned", "which")
    gate = tmp_path / "gate"
    old = which.spawn(str(tmp_path), str(gate))
    until((tmp_path / "began-1").exists, "the first version to run")
    deploy_app(versioned(2, image))
    # The handle from before, one from now, and another process all reach the new version; the old input still runs.
    assert which.remote() == 2
    assert modal.Function.lookup("versioned", "which").object_id == which.object_id
    assert users.python('import modal; print(modal.Function.from_name("versioned", "which").remote())') == 2
    gate.touch()
    assert modal.FunctionCall.from_id(old.object_id).get(timeout=30) == 1
    until(lambda: which.get_current_stats().num_total_runners == 1, "the old container to end")
    [listed] = users.apps()
    assert (listed["state"], listed["version"]) == ("deployed", "2")


def test_a_function_that_became_a_generator_says_so_to_earlier_handles(users: Users, image: modal.Image) -> None:
    def number(n: int) -> int:
        return n

    def numbers(n: int) -> Any:
        yield from range(n)

    def deploy(code: Any) -> None:
        app = modal.App("kinds", image=image)
        app.function(serialized=True, name="f")(code)
        deploy_app(app)

    deploy(number)
    plain = modal.Function.lookup("kinds", "f")
    deploy(numbers)
    generator = modal.Function.lookup("kinds", "f")
    with pytest.raises(InvalidError, match="is a generator: call it with remote_gen"):
        plain.remote(3)
    with pytest.raises(InvalidError, match="is the call of a generator: use get_gen"):
        plain.spawn(3).get(timeout=30)
    assert list(generator.remote_gen(3)) == [0, 1, 2]
    deploy(number)
    with pytest.raises(InvalidError, match="is no generator: call it with remote"):
        list(generator.remote_gen(3))
    assert plain.remote(3) == 3


def test_queued_inputs_run_on_the_new_version(users: Users, image: modal.Image, tmp_path: Path) -> None:
    deploy_app(versioned(1, image, concurrency_limit=1))
    which = modal.Function.from_name("versioned", "which")
    gate = tmp_path / "gate"
    running = which.spawn(str(tmp_path), str(gate))
    until((tmp_path / "began-1").exists, "the first version to run")
    waiting = [which.spawn() for _ in range(5)]
    deploy_app(versioned(2, image))
    assert [call.get(timeout=30) for call in waiting] == [2] * 5
    gate.touch()
    assert running.get(timeout=30) == 1


def test_a_function_that_a_deployment_removes_ends_its_queue_and_comes_back(
    users: Users, image: modal.Image, tmp_path: Path
) -> None:
    deploy_app(versioned(1, image, concurrency_limit=1))
    which = modal.Function.lookup("versioned", "which")
    gate = tmp_path / "gate"
    running = which.spawn(str(tmp_path), str(gate))
    until((tmp_path / "began-1").exists, "the first version to run")
    waiting = which.spawn()
    said = users.deploy('import modal\napp = modal.App("versioned")\n@app.function()\ndef other(): return 1')
    assert "No longer part of it: which." in said
    with pytest.raises(NotFoundError, match="'which' is not in version 2 of the app 'versioned'"):
        waiting.get(timeout=30)
    with pytest.raises(NotFoundError, match="'which' is not in version 2"):
        which.remote()
    with pytest.raises(NotFoundError, match="no function or class 'which'; it has 'other'"):
        modal.Function.lookup("versioned", "which")
    # Back again while its old container still runs.
    deploy_app(versioned(3, image))
    assert which.remote() == 3
    gate.touch()
    assert running.get(timeout=30) == 1


def test_a_map_over_a_function_that_is_removed_says_so(users: Users, image: modal.Image, tmp_path: Path) -> None:
    deploy_app(versioned(1, image, concurrency_limit=1))
    which = modal.Function.lookup("versioned", "which")
    gate = tmp_path / "gate"
    failures: list[BaseException] = []

    def work() -> None:
        try:
            list(which.map([str(tmp_path)] * 20, [str(gate)] * 20))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until((tmp_path / "began-1").exists, "the map to run")
    users.deploy('import modal\napp = modal.App("versioned")\n@app.function()\ndef other(): return 1')
    gate.touch()
    thread.join(60)
    assert [type(error) for error in failures] == [NotFoundError]
    assert "'which' is not in version 2" in str(failures[0])


@pytest.mark.parametrize(
    ("broken", "args", "words"),
    [
        ("import modal\napp = modal.App('service'\n", [], "Syntax error"),
        ("import modal\napp = modal.App()\n", [], "needs a name to be deployed"),
        (SERVICE, ["--name", "no/name"], "name must have 1 to 64"),
        (SERVICE, ["--tag", "no tag"], "tag of a version must have"),
        (SERVICE, ["--env", "nowhere"], "There is no environment 'nowhere'"),
        ("x = 1\n", [], "defines no app"),
        (
            SERVICE.replace("@app.function()\n    def square", "@app.function(gpu='nonsense')\n    def square"),
            [],
            "gpu",
        ),
        (SERVICE.replace('"service")', '"service", image=modal.Image.from_id("im-nosuch"))'), [], "im-nosuch"),
    ],
)
def test_a_definition_that_fails_leaves_the_version_before_in_force(
    users: Users, broken: str, args: list[str], words: str
) -> None:
    users.deploy(SERVICE)
    process = users.start("deploy", str(users.write(broken, "broken.py")), *args)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2), out + err
    assert words in err
    assert [one["version"] for one in history(users, "service")] == ["v1"]
    assert len(users.apps()) == 1
    assert modal.Function.from_name("service", "square").remote(5) == 25


def test_an_app_of_a_module_and_one_of_several(users: Users) -> None:
    users.write("", "shop/__init__.py")
    users.write(
        """
        import modal
        first = modal.App("first")
        second = modal.App("second")

        @first.function()
        def one(): return 1

        @second.function()
        def two(): return 2
        """,
        "shop/backend.py",
    )
    assert "has 2 apps: `first` and `second`" in users.modal("deploy", "-m", "shop.backend", fails=2)
    assert "has no app `third`" in users.modal("deploy", "-m", "shop.backend::third", fails=1)
    users.modal("deploy", "-m", "shop.backend::second")
    users.modal("deploy", "shop/backend.py::first", "--name", "renamed", "--tag", "v1.0")
    assert modal.Function.from_name("second", "two").remote() == 2
    assert modal.Function.from_name("renamed", "one").remote() == 1
    assert [one["tag"] for one in history(users, "renamed")] == ["v1.0"]


def test_included_apps_are_deployed_together(users: Users) -> None:
    users.write("import modal\npart = modal.App('part')\n@part.function()\ndef inner(x): return x + 1\n", "part.py")
    users.deploy(
        """
        import modal
        from part import inner, part

        app = modal.App("whole")
        app.include(part)

        @app.function()
        def outer(x): return inner.remote(x) * 10
        """
    )
    assert modal.Function.from_name("whole", "inner").remote(1) == 2
    assert modal.Function.from_name("whole", "outer").remote(1) == 20


def test_an_app_is_made_when_it_is_looked_up(users: Users) -> None:
    made = modal.App.lookup("empty", create_if_missing=True)
    assert modal.App.lookup("empty").app_id == made.app_id
    assert modal.App.lookup("empty", create_if_missing=True).app_id == made.app_id
    with pytest.raises(InvalidError, match="must have 1 to 64"):
        modal.App.lookup("no/name", create_if_missing=True)
    with pytest.raises(NotFoundError, match="it has nothing"):
        modal.Function.lookup("empty", "nothing")
    users.deploy(SERVICE, "--name", "empty")
    assert modal.App.lookup("empty").app_id == made.app_id
    assert modal.Function.from_name("empty", "square").remote(3) == 9


def test_functions_of_the_app_that_was_deployed_can_be_called_here(users: Users, image: modal.Image) -> None:
    app = versioned(1, image)
    result = deploy_app(app)
    assert result.app_id == app.app_id
    assert app._functions["which"].remote() == 1
    with pytest.raises(InvalidError, match="needs a name to be deployed"):
        deploy_app(modal.App())


def test_earlier_versions_come_back(users: Users, image: modal.Image) -> None:
    for number in (1, 2, 3):
        deploy_app(versioned(number, image), tag=f"release-{number}")
    which = modal.Function.lookup("versioned", "which")
    assert "Version 4" in users.modal("app", "rollback", "versioned")
    assert which.remote() == 2
    users.modal("app", "rollback", "versioned", "v1")
    assert which.remote() == 1
    versions = history(users, "versioned")
    assert [one["version"] for one in versions] == ["v1", "v2", "v3", "v4", "v5"]
    assert [one["note"] for one in versions] == ["", "", "", "rollback to v2", "rollback to v1, in force"]
    assert [one["tag"] for one in versions[:3]] == ["release-1", "release-2", "release-3"]
    deploy_app(versioned(6, image))
    assert which.remote() == 6
    for wanted, words in (("v9", "no version 9: choose one from 1 to 5"), ("6", "in force already"), ("x", "")):
        assert words in users.modal("app", "rollback", "versioned", wanted, fails=2 if wanted == "x" else 1)
    assert which.remote() == 6


def test_a_stopped_app_is_gone_and_its_name_free(users: Users, image: modal.Image) -> None:
    deploy_app(versioned(1, image))
    which = modal.Function.lookup("versioned", "which")
    assert which.remote() == 1
    before = which.object_id
    assert "Stopped the app versioned" in users.modal("app", "stop", "--name", "versioned")
    with pytest.raises(NotFoundError, match="has stopped"):
        which.remote()
    with pytest.raises(NotFoundError, match="No app 'versioned' is deployed"):
        modal.Function.lookup("versioned", "which")
    assert "is deployed or runs" in users.modal("app", "stop", "versioned", fails=1)
    deploy_app(versioned(2, image))
    assert modal.Function.from_name("versioned", "which").remote() == 2
    for use in (which.remote, lambda: which.spawn().get(), lambda: next(iter(which.map([""])))):
        which._object_id = before  # as a handle has it that was not used since
        assert use() == 2
    states = [
        (one["state"], one["version"]) for one in users.listed("app", "list") if one["description"] == "versioned"
    ]
    assert states[:2] == [("deployed", "1"), ("stopped", "1")]


def test_logs_of_a_deployed_app_are_followed_by_name(users: Users) -> None:
    users.deploy(SERVICE.replace("return x * x", "print('squaring', x, flush=True); return x * x"))
    modal.Function.from_name("service", "square").remote(11)
    follower = users.start("app", "logs", "service")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "squaring 11\n"
    modal.Function.from_name("service", "square").remote(12)
    assert follower.stdout.readline() == "squaring 12\n"
    app_id = modal.App.lookup("service").app_id
    users.modal("app", "stop", "service")
    assert follower.wait(30) == 0
    follower.communicate()
    assert "squaring 11\nsquaring 12\n" in users.modal("app", "logs", str(app_id))


def test_logs_are_streamed_after_a_deployment(users: Users) -> None:
    text = SERVICE.replace("return x * x", "print('squaring', x, flush=True); return x * x")
    users.deploy(text)
    modal.Function.from_name("service", "square").remote(1)
    process = users.start("deploy", "service.py", "--stream-logs")
    assert process.stdout is not None
    until(lambda: history(users, "service")[-1]["version"] == "v2", "the second version")
    modal.Function.from_name("service", "square").remote(2)
    assert process.stdout.readline() == "squaring 2\n"  # and nothing of the version before
    process.terminate()
    process.communicate(timeout=30)
