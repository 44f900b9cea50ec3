from __future__ import annotations

import pytest

from intermodal.machines.app import (
    AnnounceStopped,
    AppEvent,
    AppMachine,
    AppPhase,
    CancelGrace,
    EndGraceAt,
    StopFunctions,
)
from intermodal.machines.machine import IllegalTransition
from modal._wire.messages.app import AppStopReason


def app(*before: AppEvent) -> AppMachine:
    machine = AppMachine("ap-1", grace=10.0)
    for event in before:
        machine.handle(event, 0.0)
    return machine


def test_an_app_runs_and_stops_with_its_containers() -> None:
    machine = app(AppEvent.PUBLISHED)
    assert machine.accepts_calls
    reason = AppStopReason.FINISHED
    assert machine.handle(AppEvent.STOP, 5.0, reason) == [StopFunctions(reason)]
    assert not machine.accepts_calls
    assert machine.handle(AppEvent.CONTAINERS_GONE, 6.0) == [AnnounceStopped(reason)]
    assert machine.phase is AppPhase.STOPPED


def test_a_lost_client_has_a_grace_period_to_come_back() -> None:
    machine = app(AppEvent.PUBLISHED)
    assert machine.handle(AppEvent.SESSION_LOST, 100.0) == [EndGraceAt(110.0)]
    assert machine.accepts_calls
    assert machine.handle(AppEvent.SESSION_BACK, 105.0) == [CancelGrace()]
    assert machine.phase is AppPhase.RUNNING


def test_an_app_whose_client_stays_away_stops() -> None:
    machine = app(AppEvent.PUBLISHED, AppEvent.SESSION_LOST)
    assert machine.handle(AppEvent.GRACE_OVER, 10.0) == [StopFunctions(AppStopReason.CLIENT_GONE)]


def test_stopping_an_orphan_forgets_its_grace_period() -> None:
    machine = app(AppEvent.PUBLISHED, AppEvent.SESSION_LOST)
    assert machine.handle(AppEvent.STOP, 1.0) == [CancelGrace(), StopFunctions(AppStopReason.STOPPED_BY_USER)]


@pytest.mark.parametrize("event", [AppEvent.DETACHED, AppEvent.DEPLOYED])
def test_detached_and_deployed_apps_outlive_their_client(event: AppEvent) -> None:
    machine = app(event)
    assert machine.handle(AppEvent.SESSION_LOST, 0.0) == []
    assert machine.accepts_calls


def test_stopping_twice_is_no_error_and_keeps_the_first_reason() -> None:
    machine = app(AppEvent.PUBLISHED)
    machine.handle(AppEvent.STOP, 0.0, AppStopReason.INTERRUPTED)
    assert machine.handle(AppEvent.STOP, 0.0, AppStopReason.FINISHED) == []
    assert machine.stop_reason is AppStopReason.INTERRUPTED


def test_an_illegal_event_names_the_history() -> None:
    machine = app(AppEvent.PUBLISHED, AppEvent.STOP)
    with pytest.raises(
        IllegalTransition, match=r"ap-1 is stopping.*initializing -published-> running -stop-> stopping"
    ):
        machine.handle(AppEvent.DEPLOYED, 0.0)
    assert machine.phase is AppPhase.STOPPING
