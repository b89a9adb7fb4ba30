"""Blame's confusion matrix: what is planted is lost where it is said to be, and the matrix is written and shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slimline.answers import Answers
from slimline.monitor.blame.chain import Chain, Rows
from slimline.params import Budget, Monitor

LINE = ("teacher", "prune", "quantize")


def _said(labels: Any, right: float, seed: int) -> Any:
    """Outputs of which a share is right, the same rows at every stage."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(len(labels), 10)).astype(np.float32)
    shown = np.where(rng.random(len(labels)) < right, labels, (labels + 1) % 10)
    raw[np.arange(len(labels)), shown] += 8
    return {stage: raw.copy() for stage in LINE}


@pytest.fixture
def labels() -> Any:
    return np.random.default_rng(0).integers(0, 10, 4000)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    made = Chain(tmp_path, "sha256:1", {}, LINE)  # nothing of it is read from disk
    labels = np.random.default_rng(1).integers(0, 10, 1500)
    signature = {"outputs": [{"name": "logits", "shape": ["batch", 10]}], "labels": [str(each) for each in range(10)]}
    made.__dict__["answers"] = dict.fromkeys(LINE, Answers(signature))
    made.__dict__["budget"] = Budget(max_drop={"accuracy": 0.015})
    made.__dict__["objectives"] = Monitor()
    rows = [str(row) for row in range(1500)]
    made.__dict__["reference"] = Rows(rows, _said(labels, 0.9, 1), labels, np.full(1500, -1))
    return made


def test_points_are_lost_at_the_stage_and_after_it_alone(labels: Any) -> None:
    from confusion import damaged

    outputs = _said(labels, 0.9, 0)
    found = damaged(outputs, labels, LINE, "prune", 5, np.random.default_rng(2))
    lost = {
        stage: 100 * np.mean((outputs[stage].argmax(1) == labels) & (found[stage].argmax(1) != labels))
        for stage in LINE
    }
    assert lost == {"teacher": 0, "prune": 5, "quantize": 5}


@pytest.mark.parametrize("where", ["built in", "in production"])
@pytest.mark.parametrize("stage", LINE[1:])
def test_a_planted_stage_is_named(chain: Chain, labels: Any, stage: str, where: str) -> None:
    from confusion import Planted, verdict

    planted = Planted("", (stage,), stage, 12, where)
    assert {verdict(chain, _said(labels, 0.9, 0), labels, planted, seed) for seed in range(3)} == {stage}
    assert verdict(chain, _said(labels, 0.9, 0), labels, Planted("nothing", ("nothing",)), 0) == "nothing"


def test_every_scenario_is_counted(chain: Chain, labels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import confusion

    recordings = SimpleNamespace(release=None, labels=labels, chain=lambda line, how, strength: _said(labels, 0.9, 0))
    monkeypatch.setattr(confusion.provenance, "named", lambda _: {"revision": "sha256:1", "dvc": "1.dir"})
    found = confusion.measure(recordings, chain, 1)
    assert [row["name"] for row in found["scenarios"]][-3:] == ["blur 1 px", "rotate 15 °", "nothing"]
    assert len(found["scenarios"]) == 2 * 4 * 2 + 3
    assert all(sum(row["verdicts"].values()) == 1 for row in found["scenarios"])
