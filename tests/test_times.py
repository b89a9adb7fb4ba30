"""A stage's time is kept when it ended well, and only then."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from slimline import times


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_recorded_is_read_back() -> None:
    with times.recorded("export@prune"):
        pass
    record = json.loads(Path(".slimline/times/export@prune.json").read_text(encoding="utf-8"))
    assert times.read("export@prune") == record
    assert 0 <= record["seconds"] < 5
    assert datetime.fromisoformat(record["when"]).utcoffset() is not None


def test_a_failure_leaves_the_last_time() -> None:
    with times.recorded("prune"):
        pass
    before = times.read("prune")
    with pytest.raises(ZeroDivisionError), times.recorded("prune"):
        1 / 0  # noqa: B018
    assert times.read("prune") == before
    assert times.read("distill") is None
