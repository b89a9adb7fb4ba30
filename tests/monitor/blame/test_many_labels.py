"""Any of several labels: blame goes by the sets that stages answer, and counts no row as labelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.events import EventStore, Label, Prediction
from slimline.manifest import digest
from slimline.monitor.blame import blame, replayed, steps
from slimline.monitor.blame.chain import UNKNOWN, Chain, Rows
from slimline.task import Split


@pytest.fixture(scope="module")
def images(splits: dict[str, Split]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = splits["validation"].inputs["image"]
    return found


def test_stages_agree_where_they_answer_the_same_labels(many_release: Path, images: NDArray[np.float32]) -> None:
    chain = Chain.read(many_release)
    rows = replayed(many_release, {"image": images}, ["3"] * len(images))
    assert not rows.known.any()
    assert chain.agree(rows, "teacher", "distill").all(), "the same model twice"
    more = rows.outputs["distill"] + np.float32(3.0)  # the likeliest stays
    changed = Rows(rows.ids, {**rows.outputs, "distill": more}, rows.labels, rows.served)
    assert not chain.agree(changed, "teacher", "distill").all()
    spoiled = steps.examples(chain, changed, "teacher", "distill")
    assert spoiled
    assert all(each["before"] != each["after"] for each in spoiled)
    assert steps.classes(chain, changed, "teacher", "distill", 0.95) == []


def test_a_common_shift_is_another_input(many_release: Path, images: NDArray[np.float32]) -> None:
    """To a softmax it is none."""
    chain = Chain.read(many_release)
    raw = chain.replay({"image": images}, ["teacher"])["teacher"]
    assert steps.moved(chain, raw, raw, 0.95) == []
    found = steps.moved(chain, raw + np.float32(2.0), raw, 0.95)
    assert any("the teacher's confidence" in each for each in found)
    assert any("the mix of labels" in each for each in found)


def test_one_label_that_is_not_the_likeliest_is_no_other_answer(
    many_release: Path, images: NDArray[np.float32], tmp_path: Path
) -> None:
    """A label with a low threshold is answered alone where a likelier one stays below its own."""
    chain = Chain.read(many_release)
    raw = chain.replay({"image": images})
    own = chain.answers["distill"]
    labels, recorded = own.of({"logits": raw["distill"]})
    assert labels is not None
    alone = [row for row, label in enumerate(labels) if label and "," not in label]
    assert sum(raw["distill"][row].argmax() != int(labels[row]) for row in alone) >= 3
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as store:
        made = [
            Prediction(
                id=f"{row}", time=1e9 + row, revision=digest(many_release), variant="main", labels=[labels[row]],
                outputs=recorded[row : row + 1], latency={"predict": 1e-4, "total": 2e-4}, sampled=[0],
                stages={stage: each[row : row + 1] for stage, each in raw.items()},
            )
            for row in range(len(labels))
        ]  # fmt: skip
        store.write(made)
        store.label([Label(each.id, 0, "3", each.time + 1) for each in made])
        found = blame(many_release, store, rounds=0)
    assert (found.verdict, found.rows, found.labelled) == ("nothing", len(labels), 0)
    assert chain.index("3") == UNKNOWN
