"""An app whose containers take long to end is waited for, and that is said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from real_server import PYTHON, RealServer

import modal
from modal import _output, _running


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"stop_grace": 60.0}


class Told(_output.SilentOutput):
    """Keeps what is said, and answers it with a file."""

    def __init__(self, answer: Path) -> None:
        self.texts: list[str] = []
        self._answer = answer

    def message(self, text: str) -> None:
        self.texts.append(text)
        if "still ending" in text:
            self._answer.touch()


def test_it_is_said_that_containers_are_waited_for(
    real_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_running, "_STILL_ENDING", 0.1)
    app = modal.App(image=modal.Image.debian_slim(PYTHON))
    answer, left = str(tmp_path / "answer"), str(tmp_path / "left")

    class Slow:
        @modal.method()
        def work(self) -> int:
            return 1

        @modal.exit()
        def leave(self) -> None:
            while not Path(answer).exists():
                time.sleep(0.02)
            Path(left).touch()

    served = app.cls(serialized=True)(Slow)
    told = Told(Path(answer))
    monkeypatch.setattr(_output, "_active", told)
    with app.run():
        assert served().work.remote() == 1
    assert Path(left).exists()
    assert sum("still ending" in text for text in told.texts) == 1
    assert not [text for text in told.texts if "could not be stopped" in text]
