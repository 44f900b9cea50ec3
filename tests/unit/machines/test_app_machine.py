from __future__ import annotations

import pytest

from intermodal.machines.app import ACCEPTING, APP_TABLE, AppChange, AppPhase, app_machine
from intermodal.machines.machine import IllegalTransition
from modal._wire.messages.app import AppState


def test_an_ephemeral_app_ends_with_its_client() -> None:
    machine = app_machine("ap-1", AppState.EPHEMERAL)
    assert machine.on(AppChange.CLIENT_GONE) is AppPhase.STOPPING
    assert machine.on(AppChange.CONTAINERS_GONE) is AppPhase.STOPPED


@pytest.mark.parametrize("state", [AppState.DETACHED, AppState.DEPLOYED])
def test_other_apps_outlive_their_client(state: AppState) -> None:
    machine = app_machine("ap-1", state)
    assert machine.on(AppChange.CLIENT_GONE).value == state.value
    assert machine.on(AppChange.STOP) is AppPhase.STOPPING


def test_stopping_again_changes_nothing() -> None:
    for phase in AppPhase:
        after = APP_TABLE[phase, AppChange.STOP]
        assert after is (AppPhase.STOPPED if phase is AppPhase.STOPPED else AppPhase.STOPPING)
        assert after not in ACCEPTING


def test_an_app_that_is_in_use_cannot_lose_its_containers_to_an_end() -> None:
    with pytest.raises(IllegalTransition, match="ap-1 is ephemeral and cannot take 'containers gone'"):
        app_machine("ap-1", AppState.EPHEMERAL).on(AppChange.CONTAINERS_GONE)
