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

from slimline.method import Method


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


def run(target: Path, processes: int, stop: int = -1) -> None:
    """Train in so many processes by ``torchrun``, or without it in one; ``stop`` is the epoch it breaks off after."""
    target.mkdir(exist_ok=True)
    (target / "script.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *launch, str(target / "script.py"), str(target), str(stop)],
        env=os.environ | {"OMP_NUM_THREADS": "1",
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
