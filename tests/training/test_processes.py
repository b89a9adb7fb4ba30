"""Two processes that share each batch end in the weights of one; the first alone writes files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import TrainingError
from slimline.method import Method
from slimline.training.processes import on_cpu


class Shrink(Method):
    """A penalty on weights beside the loss: it is no mean over rows."""

    def penalty(self, model: nn.Module) -> Tensor:
        return 1e-3 * sum(((each**2).sum() for each in model.parameters()), torch.zeros(()))


SCRIPT = """
import json, os, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from slimline.params import Training
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, TeacherCache, fit
from slimline.training.losses import SoftTargets
from tests.training.test_processes import Shrink

target, stop = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)


def net(seed, width):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.GELU(), nn.Linear(width, 10)).double()


class Stopped(Exception):
    pass


def on_epoch(record):
    seen.append(record.loss)
    if record.epoch == stop and len(seen) == stop + 1:
        raise Stopped


def rows(split, count):
    return Split({"image": split.inputs["image"][:count].astype(np.float64)}, split.targets[:count])


task, seen = Digits(), []
task.augment_draws = 0
splits = task.splits()
train, model = rows(splits["train"], 129), net(1, 16)
settings = Training(epochs=3, batch_size=32, lr=0.01, weight_decay=0.01, clip_norm=1.0)
teacher = TeacherCache(net(2, 8), task, train, "teacher", 0, target / "answers")
writes = []
state = State({}, target / "state")
saved = state.save
state.save = lambda found: (writes.append(os.environ.get("RANK", "0")), saved(found))
try:
    fit(model, task, train, rows(splits["validation"], 100), settings, loss=SoftTargets(), seed=3,
        state=state, where="params.yaml: x.training", teacher=teacher, methods=[Shrink()], on_epoch=on_epoch)
except Stopped:
    sys.exit(0)
finally:
    rank = os.environ.get("RANK", "0")
    (target / f"writes-{rank}.json").write_text(json.dumps(writes))
torch.save({"weights": model.state_dict(), "losses": seen}, target / f"end-{rank}.pt")
"""


NORMED = """
import os, sys, time
from dataclasses import asdict
from pathlib import Path
import torch
from torch import nn
from slimline.params import Training
from slimline.stage import Stage
from slimline.tasks.digits import Digits
from slimline.training import State, Term, fit
from slimline.training.losses.hard import Hard

target = Path(sys.argv[1])
rank = os.environ["RANK"]
torch.set_num_threads(1)


class Prepared(Digits):
    def splits(self):
        if not (target / "rows").exists():
            time.sleep(0.5)
            (target / f"made-{rank}").touch()
            (target / "rows").touch()
        return super().splits()


stage = Stage("teacher", None, None)
vars(stage)["task"] = Prepared()
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, momentum=1.0), nn.Linear(64, 10))
task, splits = stage.task, stage.splits
settings = Training(epochs=9, batch_size=16, lr=0.3, patience=1)
history = fit(model, task, splits["train"].head(64), splits["validation"].head(300), settings, loss=[Term(Hard())],
              seed=3, state=State({}, target / "state"), where="params.yaml: x.training")
torch.save({"weights": model.state_dict(), "history": [asdict(each) for each in history]},
           target / f"end-{rank}.pt")
"""


def run(target: Path, processes: int, stop: int = -1, script: str = SCRIPT) -> None:
    """Train in so many processes by ``torchrun``, or without it in one; ``stop`` is the epoch it breaks off after."""
    target.mkdir(exist_ok=True)
    (target / "script.py").write_text(script)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *launch, str(target / "script.py"), str(target), str(stop)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1",  # one GPU has no room for two
                          "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def ending(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"end-{rank}.pt", weights_only=True)
    return found


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three runs: in one process, in two, and in two that were stopped and went on."""
    folder = tmp_path_factory.mktemp("processes")
    run(folder / "one", 1)
    run(folder / "two", 2)
    run(folder / "resumed", 2, stop=0)
    run(folder / "resumed", 2)
    return {name: folder / name for name in ("one", "two", "resumed")}


@pytest.mark.parametrize("name", ["two", "resumed"])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_end_in_the_weights_of_one(ends: dict[str, Path], name: str, rank: int) -> None:
    """The last batch has one row: one process has nothing to learn from it."""
    one, two = ending(ends["one"]), ending(ends[name], rank)
    for key, tensor in one["weights"].items():
        assert tensor.dtype == torch.float64
        assert torch.allclose(two["weights"][key], tensor, rtol=0, atol=1e-10), key
    assert two["losses"][-3:] == pytest.approx(one["losses"], rel=1e-5)


def test_the_first_process_alone_writes(ends: dict[str, Path]) -> None:
    assert json.loads((ends["two"] / "writes-0.json").read_text()) == ["0", "0", "0"]
    assert json.loads((ends["two"] / "writes-1.json").read_text()) == []


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in two processes of a model with BatchNorm."""
    folder = tmp_path_factory.mktemp("normed")
    run(folder, 2, script=NORMED)
    return folder


def test_running_statistics_are_those_of_the_first_process_and_all_stop_together(normed: Path) -> None:
    """Each process normalizes rows of its own, and ``patience`` must end all of them at one epoch."""
    first, second = (ending(normed, rank) for rank in (0, 1))
    assert first["history"] == second["history"]
    assert 1 < len(first["history"]) < 9
    for key, tensor in first["weights"].items():
        assert torch.equal(second["weights"][key], tensor), key


def test_the_first_process_alone_prepares_rows(normed: Path) -> None:
    assert [path.name for path in normed.glob("made-*")] == ["made-0"]


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "on", "0", "false", "no", "off"])
def test_what_accelerate_takes_for_a_flag_keeps_training_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    assert on_cpu() is (value.lower() in {"1", "true", "yes", "on"})


def test_a_flag_that_is_neither_true_nor_false_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "maybe")
    with pytest.raises(
        TrainingError, match=r"^environment variable ACCELERATE_USE_CPU: invalid truth value maybe; set"
    ):
        on_cpu()
