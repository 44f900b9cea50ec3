from __future__ import annotations

from pathlib import Path

from intermodal.machines import diagram
from intermodal.machines.container import CONTAINER_TABLE, ContainerEvent, ContainerState, container_machine

PAGE = Path(__file__).parents[3] / "docs" / "state-machines.md"


def test_the_committed_page_is_what_the_tables_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == diagram.page(), "run: python -m intermodal.machines.diagram > docs/…"


def test_every_state_of_every_machine_can_be_reached_and_left_or_is_an_end() -> None:
    for title, _, firsts, table in diagram._MACHINES:
        reached = set(firsts)
        for _ in table:
            reached |= {target for (state, _), target in table.items() if state in reached}
        assert reached == set(type(firsts[0])), title


def test_every_container_can_end() -> None:
    for state in ContainerState:
        assert state is ContainerState.EXITED or (state, ContainerEvent.EXITED) in CONTAINER_TABLE


def test_a_stopped_container_may_still_report_that_it_came_up() -> None:
    machine = container_machine("ta-1")
    machine.on(ContainerEvent.STOP)
    assert machine.on(ContainerEvent.READY) is ContainerState.STOPPING
    assert machine.history() == "starting -stop-> stopping -ready-> stopping"
    assert not machine.allows(ContainerEvent.DRAIN)
