"""What is remembered of images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intermodal.builder.records import ImageRecord, ImageRecords

RECORD = ImageRecord("im-" + "a" * 22, "f" * 64, ("l2", "l1"), {"PATH": "/bin"}, "/w", "/bin/python", "3.11.7", ("e",))


@pytest.fixture
def records(tmp_path: Path) -> ImageRecords:
    for name in RECORD.layers:
        (tmp_path / "layers" / name / "diff").mkdir(parents=True)
    return opened(tmp_path)


def opened(tmp_path: Path) -> ImageRecords:
    records = ImageRecords(tmp_path / "images", tmp_path / "layers")
    records.open()
    return records


def test_a_record_is_found_by_a_later_process(records: ImageRecords, tmp_path: Path) -> None:
    assert records.get(RECORD.image_id) is None
    records.put(RECORD)
    assert records.get(RECORD.image_id) == RECORD
    assert opened(tmp_path).get(RECORD.image_id) == RECORD
    built = records.built(RECORD)
    assert built.layers == tuple(tmp_path / "layers" / name / "diff" for name in ("l2", "l1"))
    assert built.entrypoint == ("e",)


def test_an_image_whose_layers_are_gone_is_not_finished(records: ImageRecords, tmp_path: Path) -> None:
    records.put(RECORD)
    (tmp_path / "layers" / "l1" / "diff").rmdir()
    assert records.get(RECORD.image_id) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 99}'])
def test_a_record_that_cannot_be_read_is_none(records: ImageRecords, tmp_path: Path, content: str) -> None:
    records.put(RECORD)
    (tmp_path / "images" / f"{RECORD.image_id}.json").write_text(content)
    assert opened(tmp_path).get(RECORD.image_id) is None


def test_a_record_of_another_image_is_not_believed(records: ImageRecords, tmp_path: Path) -> None:
    records.put(RECORD)
    path = tmp_path / "images" / f"{RECORD.image_id}.json"
    other = "im-" + "b" * 22
    path.rename(path.with_name(f"{other}.json"))
    assert json.loads(path.with_name(f"{other}.json").read_text())["image_id"] == RECORD.image_id
    assert opened(tmp_path).get(other) is None
    assert opened(tmp_path).get("../images/x") is None


def test_half_written_records_are_removed(records: ImageRecords, tmp_path: Path) -> None:
    half = tmp_path / "images" / ".im-x.json.new"
    half.write_text("{")
    opened(tmp_path)
    assert not half.exists()
