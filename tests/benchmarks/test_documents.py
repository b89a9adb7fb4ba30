"""The documents' tables say what they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slimline import manifest, provenance


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose dvc.lock holds one release."""
    lock = {"stages": {"release": {"outs": [{"path": "release", "md5": "now.dir"}]}}}
    (tmp_path / provenance.LOCK).write_text(json.dumps(lock))
    (tmp_path / "metrics").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ({"release": {"revision": "sha256:1", "dvc": "now.dir"}}, ""),
        ({"release": {"revision": "sha256:0", "dvc": "then.dir"}}, "another release than dvc.lock's: sha256:0."),
        ({}, "another release than dvc.lock's: one that wasn't recorded"),
    ],
    ids=["this", "another", "unknown"],
)
def test_a_table_says_that_another_release_was_measured(repository: Path, release: dict[str, Any], said: str) -> None:
    from tables import monitoring

    run = {
        "scenario": "f", "title": "nothing", "alarms": [], "goals": {}, "points_lost": {}, "back_after": None,
        "requests_until_alarm": None, "failed": 0,
    }  # fmt: skip
    (repository / "metrics/regressions.json").write_text(json.dumps({"runs": {"f-0": run | release}}))
    *_, last = monitoring.regressions(repository).splitlines()
    assert said in last if said else last.startswith("| (f) nothing")


def test_a_release_is_named_by_its_revision_and_as_dvc_does(tmp_path: Path) -> None:
    with manifest.sealed(tmp_path / "release") as scratch:
        (scratch / "card.json").write_text("{}")
    named = provenance.named(tmp_path / "release")
    assert named == {
        "revision": manifest.digest(tmp_path / "release"),
        "dvc": provenance.dvc_hash(tmp_path / "release"),
    }


def test_what_the_monitor_costs_is_shown_once_it_was_measured(repository: Path) -> None:
    from tables import monitoring

    assert monitoring.speed(repository) == ""
    measured = {
        "release": {"revision": "sha256:1", "dvc": "now.dir"}, "events": 1_000_000, "events_per_second": 54_000,
        "memory_mb": {"settled": 118.0, "end": 122.0}, "memory_mb_per_million_events": 4.9, "restart_seconds": 0.3,
    }  # fmt: skip
    (repository / "metrics/monitor-speed.json").write_text(json.dumps(measured))
    *_, row = monitoring.speed(repository).splitlines()
    assert row == "| 1,000,000 | 54,000 | 118 → 122 | +4.9 | 0.3 |"


def test_the_time_to_int8_is_held_to_its_goal(repository: Path) -> None:
    from tables import training

    assert training.int8(repository) == ""
    measured = {
        "rows": 10_000, "goal_s": 600, "machine": {"cores": 2}, "seconds": {"report": 548, "release": 612},
        "stages": {"teacher": 52.5, "quantize": 165.3}, "processor_seconds": 880, "load": [0.1, 2.0],
    }  # fmt: skip
    (repository / "metrics/int8.json").write_text(json.dumps(measured))
    lines = training.int8(repository).splitlines()
    assert "| quantize | 165 |  |" in lines
    assert "| until the report, `slimline init` and DVC included | 548 | ≤ 600: met |" in lines
    assert "| until the release, `slimline init` and DVC included | 612 | ≤ 600: missed |" in lines
