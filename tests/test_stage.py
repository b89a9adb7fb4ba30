"""A compression stage keeps what its methods did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from slimline import artifact, params, pipeline, stage
from slimline.artifact import Artifact
from slimline.decisions import Decisions
from slimline.errors import SlimlineError
from slimline.file_index import FILE, FileIndex
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.methods.magnitude import Magnitude
from slimline.models.cnn import Cnn
from slimline.pruning import masks
from slimline.pruning.channels import slice_model
from slimline.stage import Stage, compression
from slimline.task import Split, Task
from slimline.training import Epoch
from slimline.training.curves import Curves


@dataclass(frozen=True)
class Halve(Method):
    """Slices the model and loads no tensors: what is kept is already there."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Halve", {"kept": [0, 1, 2, 3]}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        kept = edit.data["kept"]
        return slice_model(model, {"0": {"out": kept}, "1": {"out": kept}, "3": {"in": kept}})


@dataclass(frozen=True)
class Lasso(Method):
    """Changes nothing itself and joins the loss of the recovery."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Lasso", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model

    def penalty(self, model: nn.Module) -> Tensor | None:
        return sum((p.abs().sum() for p in model.parameters()), start=next(model.parameters()).new_zeros(()))


@dataclass(frozen=True)
class Undecided(Method):
    """Finds nothing worth doing."""

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return Plan(Edit(f"{__name__}:Undecided", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model


@contextmanager
def _no_curves(name: str, *, resume: bool = False) -> Iterator[Curves]:
    yield Curves(name)


def test_batches_hold_rows_of_like_length_and_each_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 1000)
    ids = np.where(np.arange(50) < lengths[:, None], 1 + np.arange(1000)[:, None], 0)
    split = Split({"ids": ids}, np.arange(1000), padding=("ids", 0))
    batches = Stage("quantize", params.load(), None).batches(split)
    seen = [(inputs["ids"], y) for inputs, y in batches()]
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == list(range(1000))
    assert all((x[:, 0] == y + 1).all() for x, y in seen)
    assert sum(x.numel() for x, _ in seen) < 1.1 * lengths.sum()
    widths = [x.shape[1] for x, _ in seen]
    assert widths != sorted(widths)  # whoever looks at the first few sees long ones too
    assert all(torch.equal(x, again["ids"]) for (x, _), (again, _) in zip(seen, batches(), strict=True))


@pytest.mark.parametrize(("method", "kept"), [(Halve, True), (Lasso, True), (Undecided, False)])
def test_a_methods_edit_is_kept_when_it_changed_something_or_joins_the_training(
    method: type[Method],
    kept: bool,
    cnn: Cnn,
    described: dict[str, Artifact],
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Edits without tensors used to be dropped, and the stage wrote an artifact that couldn't be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "curves", _no_curves)  # DVCLive wants a git repository
    name = f"{__name__}:{method.__name__}"
    document |= {"trust": [name], "limit": 60}
    document["prune"] = {"from": "teacher", "methods": [{"name": name}]}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    compression(Stage("prune", params.load(), 60))
    model, written = artifact.load(Path("artifacts/prune"), trust=[name])
    assert [edit.method for edit in written.edits] == ([name] if kept else [])
    assert model.get_submodule("0").out_channels == (4 if method is Halve else 8)


@pytest.fixture
def prune(cnn: Cnn, described: dict[str, Artifact], document: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> Any:
    """Run the prune stage of a params.yaml section on the small network and return the model that it writes."""

    def run(section: dict[str, Any], name: str = "prune") -> nn.Module:
        document[name] = section
        Path("params.yaml").write_text(yaml.safe_dump(document))
        compression(Stage(name, params.load(), 60))
        return artifact.load(Path("artifacts", name))[0]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "curves", _no_curves)
    document["limit"] = 60
    artifact.save(Path("artifacts/teacher"), cnn, described["cnn"])
    return run


def test_masks_of_an_earlier_stage_hold_in_the_recovery_of_a_later_one(prune: Any) -> None:
    recovery = {"epochs": 2, "lr": 0.05, "optimizer": "sgd", "weight_decay": 0.01}
    pruned = prune({"from": "teacher", "methods": [{"name": "magnitude", "ratio": 0.8}], "recovery": recovery})
    quantized = prune({"from": "prune", "methods": [{"name": "linear"}], "recovery": recovery}, "quantize")
    before, after = masks.masked(pruned), masks.masked(quantized)
    assert before.keys() == after.keys()
    for name, layer in after.items():
        assert torch.equal(masks.live(layer), masks.live(before[name]))
        assert not torch.equal(masks.weight(layer), masks.weight(before[name]))
        assert not masks.weight(layer)[~masks.live(layer)].any()


def test_a_pattern_that_slicing_breaks_is_told_with_its_layer(prune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every 4 inputs more than 2 lived once channels had gone, and nothing said so."""
    prune({"from": "teacher", "methods": [{"name": "n-m"}, {"name": "linear"}]})
    assert "2:4" not in capsys.readouterr().out
    pruned = prune({"from": "prune", "methods": [{"name": "structured", "importance": "l1", "multiple": 1}]}, "again")
    told = [line for line in capsys.readouterr().out.splitlines() if "2:4" in line]
    expected = []
    for name, layer in masks.masked(pruned).items():
        lives = masks.live(layer).movedim(1, 0)  # in × out × …
        over = sum(int((lives[at : at + 4].sum(0) > 2).sum()) for at in range(0, len(lives), 4))
        if over:
            expected.append(f"again: structured: {name}: 2:4 holds no more: {over} of ")
    assert expected
    assert [line[: len(start)] for line, start in zip(told, expected, strict=True)] == expected


def test_keys_for_layers_that_are_skipped_are_refused(prune: Any) -> None:
    linear = {"name": "linear", "skip": ["11"], "layers": {"1[01]": {"bits": 4}}}
    with pytest.raises(SlimlineError, match=r"prune\.methods\.0\.layers: '1\[01\]' names only layers that skip leaves"):
        prune({"from": "teacher", "methods": [linear]})


@pytest.mark.parametrize("recovery", [None, {"epochs": 0, "lr": 0.1}], ids=["none", "no epochs"])
def test_a_schedule_without_recovery_is_named(prune: Any, recovery: dict[str, Any] | None) -> None:
    section = {"from": "teacher", "methods": [{"name": "magnitude", "schedule": "cubic"}], "recovery": recovery}
    with pytest.raises(SlimlineError, match=r"prune\.methods\.0: magnitude needs training; give recovery epochs"):
        prune(section)


def test_training_before_the_cut_draws_channels_to_zero(prune: Any) -> None:
    methods = [{"name": "structured", "importance": "l2", "ratio": 0.25, "multiple": 1}]
    recovery = {"epochs": 1, "lr": 1e-6}
    sparsify = [{"name": "sparsify", "kind": "l1", "strength": 0.1}]
    before = {"epochs": 4, "batch_size": 10, "lr": 0.01, "methods": sparsify}
    bare = prune({"from": "teacher", "methods": methods, "recovery": recovery})
    drawn = prune({"from": "teacher", "before": before, "methods": methods, "recovery": recovery})
    assert [each.method for each in artifact.read(Path("artifacts/prune")).edits] == ["sparsify", "structured"]
    assert _size(drawn) < 0.5 * _size(bare)
    assert sum(p.numel() for p in drawn.parameters()) < sum(p.numel() for p in Cnn(width=8).parameters())


def _size(model: nn.Module) -> float:
    """Return the mean |w| of a model's convolutions."""
    weights = [layer.weight.detach().abs().flatten() for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return float(torch.cat(weights).mean())


def test_sparsify_without_training_is_named(prune: Any) -> None:
    with pytest.raises(SlimlineError, match=r"prune\.methods\.0: sparsify needs training; give recovery epochs"):
        prune({"from": "teacher", "methods": [{"name": "sparsify"}]})


def test_an_unset_before_changes_no_recorded_decision(prune: Any) -> None:
    """The key of decisions/STAGE.json hangs on what a section holds, and on every setting of its methods."""
    section = {"from": "teacher", "methods": [{"name": "magnitude"}]}
    prune(section)
    parent = artifact.manifest.digest(Path("artifacts/teacher"))
    task = artifact.build_task(artifact.Named("digits"), "here")
    inputs = {
        "input": parent,
        "section": {"from": "teacher", "recovery": None},
        "methods": [["magnitude", asdict(Magnitude())]],
        "target": params.Target().model_dump(),
        "data": [task.splits()[name].head(60).digest for name in ("calibration", "validation")],
    }
    assert (
        Decisions(Path("decisions/prune.json"), inputs).key
        == yaml.safe_load(Path("decisions/prune.json").read_text())["key"]
    )


@dataclass(frozen=True)
class Dice(Method):
    """Changes nothing, by a measurement that comes out differently each time."""

    throws: ClassVar[list[int]] = []

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        def throw() -> dict[str, int]:
            self.throws.append(len(self.throws))
            return {"thrown": self.throws[-1]}

        context.decisions.choose("dice", throw)
        return Plan(Edit(f"{__name__}:Dice", {}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return model


def test_a_stage_replays_its_decisions_until_params_say_remeasure(prune: Any) -> None:
    Dice.throws.clear()
    section = {"from": "teacher", "methods": [{"name": f"{__name__}:Dice"}]}
    recorded = []
    for remeasure in (False, False, True, False):
        prune(section | {"remeasure": remeasure})
        recorded.append(yaml.safe_load(Path("decisions/prune.json").read_text())["choices"]["dice"]["thrown"])
    assert recorded == [0, 0, 1, 1]


@dataclass(frozen=True)
class Counted:
    """The task's loss, counting its steps."""

    steps: ClassVar[list[int]] = []

    def __call__(self, task: Task, out: Tensor, y: Tensor | None, teacher: Tensor | None) -> Tensor:
        self.steps.append(1)
        assert y is not None
        return task.loss(out, y)


class Killed(Exception):  # noqa: N818  (a stand-in for SIGKILL, no error of the program)
    """Breaks a stage off behind its first epoch."""


@pytest.mark.parametrize(
    ("code", "threads", "trained", "said"),
    [
        pytest.param("X = 1  # said anew\n", "1", 3, "", id="same code"),
        pytest.param("X = 2\n", "1", 6, "code differs; it starts anew\n", id="changed code"),
        pytest.param(
            "X = 1\n", "2", 6, "threads differ (1, now 2: OMP_NUM_THREADS=1 goes on with it); it starts anew\n",
            id="other threads",
        ),
    ],
)  # fmt: skip
def test_a_broken_off_training_is_resumed_by_the_same_code_alone(
    prune: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, threads: str,
    trained: int, said: str,
) -> None:  # fmt: skip
    """60 rows in batches of 20 for two epochs; the first epoch was done when the stage was killed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Counted.steps.clear()
    recovery = {"epochs": 2, "lr": 0.01, "batch_size": 20, "loss": {"name": f"{__name__}:Counted"}}
    section = {"from": "teacher", "methods": [{"name": "magnitude"}], "recovery": recovery}
    script = Path("stages/prune.py")
    script.parent.mkdir()
    script.write_text("X = 1\n")

    class Last(Curves):
        def __call__(self, epoch: Epoch) -> None:
            raise Killed

    @contextmanager
    def killed(name: str, *, resume: bool = False) -> Iterator[Curves]:
        yield Last(name)

    monkeypatch.setattr(stage, "curves", killed)
    with pytest.raises(Killed):
        prune(section)
    monkeypatch.setattr(stage, "curves", _no_curves)
    assert len(Counted.steps) == 3
    Counted.steps.clear()
    script.write_text(code)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    capsys.readouterr()
    prune(section)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines(keepends=True) if "unfinished" in line] == (
        [f"prune: an unfinished training is there, but its {said}"] if said else []
    )
    assert len(Counted.steps) == trained


def test_training_reads_no_source_that_the_fingerprints_have_read(prune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"from": "teacher", "methods": [{"name": "magnitude"}], "recovery": {"epochs": 1, "lr": 0.01}}
    prune(section)
    index = FileIndex(FILE)
    pipeline.fingerprint(params.read(), "prune", index=index)
    index.save()

    def refused(_path: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(pipeline, "read_code", wraps(pipeline.read_code)(refused))
    prune(section)


@pytest.mark.parametrize("limit", [None, 200, 10_000])
def test_only_splits_that_the_limit_cuts_leave_rows_out(document: dict[str, Any], limit: int | None) -> None:
    own = Stage("teacher", params.parse(document), limit)
    whole = {name: len(split) for name, split in own.task.splits().items()}
    assert min(whole.values()) < 200 < max(whole.values())
    expected = {name: [200, count] for name, count in whole.items() if count > 200} if limit == 200 else {}
    assert own.left_out == expected
    assert {name: len(split) for name, split in own.splits.items()} == {
        name: min(count, limit or count) for name, count in whole.items()
    }


def test_ctrl_c_ends_a_stage_in_one_line(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Stage) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr("sys.argv", ["stages/teacher.py"])
    with pytest.raises(SystemExit) as ended:
        stage.run("teacher", interrupted)
    assert ended.value.code == 130
    said = "teacher: stopped; the same command goes on, a training at its last epoch\n"
    assert capsys.readouterr().err == said
