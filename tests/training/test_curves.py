"""What a training says while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import Epoch, State, fit
from slimline.training.curves import Curves
from slimline.training.losses import SoftTargets


class Kept:
    """Stands where DVCLive does, which wants a git repository."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = [{}]

    def log_metric(self, name: str, value: float) -> None:
        self.steps[-1][name] = value

    def next_step(self) -> None:
        self.steps.append({})


class Stopped(Exception):  # noqa: N818  (a stand-in for SIGKILL, no error of the program)
    pass


def test_epochs_that_were_done_before_are_counted_and_not_told_again(
    task: Digits, splits: dict[str, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were printed as if they ran anew; the curves still need them."""

    def train(**heard: Any) -> list[Epoch]:
        rows = splits["train"].head(60), splits["validation"].head(20)
        settings = Training(epochs=4, batch_size=30, lr=0.01)
        state = State({}, tmp_path)
        return fit(
            Cnn(width=4),
            task,
            *rows,
            settings,
            loss=SoftTargets(),
            seed=3,
            state=state,
            where="here",
            **heard,
        )

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 1:
            raise Stopped

    with pytest.raises(Stopped):
        train(on_epoch=stop)
    live: Any = Kept()
    log = Curves("teacher", live)
    history = train(on_epoch=log, on_resume=log.resumed)
    before, *lines = capsys.readouterr().out.splitlines()
    assert before == "teacher: 2 epochs were done before"
    assert [line.partition(" loss=")[0] for line in lines] == ["teacher: epoch 3", "teacher: epoch 4"]
    assert [step["loss"] for step in live.steps[:-1]] == [each.loss for each in history]
