"""A container that is told to end while an input runs in it: the input is interrupted and runs again elsewhere."""

from __future__ import annotations

import re

import pytest
from acceptance_harness import Platform, Program

pytestmark = pytest.mark.e2e

APP = """
    import os, time
    import modal

    app = modal.App("stopped")
    attempts = modal.Dict.from_name("{name}", create_if_missing=True)

    @app.function(retries=0)
    def work():
        container = os.environ["MODAL_TASK_ID"]
        if attempts.get("begun"):
            return container
        attempts["begun"] = True
        print("begun in", container)
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("interrupted")
                if {gives_way}:
                    raise

    @app.local_entrypoint()
    def main():
        print("ended in", work.remote())
"""


@pytest.mark.parametrize("gives_way", [True, False])
def test_its_input_is_interrupted_and_runs_again_in_another(
    gives_way: bool, platform: Platform, program: Program
) -> None:
    path = program(APP.format(name=f"stopped-{gives_way}", gives_way=gives_way))
    with platform.background("modal", "run", path) as running:
        running.wait_for("begun in ta-")
        [container] = re.findall(r"begun in (ta-\w+)", running.out)
        platform.modal("container", "stop", container).succeeded()
        ran = running.end().succeeded()
    assert ran.out.splitlines()[:2] == [f"begun in {container}", "interrupted"]
    [another] = re.findall(r"^ended in (ta-\w+)$", ran.out, re.MULTILINE)
    assert another != container
