"""check_task passes every built-in, and names each promise that a bad task breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.tasks.fashion_mnist import FashionMnist
from slimline.testing import check_task


def grey(size: int) -> list[NDArray[np.uint8]]:
    return [np.full((size, size), value, np.uint8) for value in (0, 200)]


def test_digits() -> None:
    check_task(Digits(), raw=grey(8))


def test_fashion_mnist(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    check_task(FashionMnist(), raw=grey(28))


DIGITS = Digits()


class Small(Digits):
    """Forty rows a split of the digits; the bad tasks below break one promise each."""

    def splits(self) -> dict[str, Split]:
        return {name: split.head(40) for name, split in DIGITS.splits().items()}


class ThreeSplits(Small):
    def splits(self) -> dict[str, Split]:
        return {name: split for name, split in super().splits().items() if name != "calibration"}


class EmptySplit(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {**splits, "test": Split({"image": splits["test"].inputs["image"][:0]}, splits["test"].targets[:0])}


class SharedRows(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {**splits, "calibration": splits["train"].head(3)}


class StraddlingGroup(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        groups = {name: np.arange(40) + 39 * at for at, name in enumerate(splits)}
        return {name: Split(split.inputs, split.targets, groups[name]) for name, split in splits.items()}


class UnseededSplits(Small):
    def splits(self) -> dict[str, Split]:
        order = np.random.permutation(40)  # noqa: NPY002
        return {name: Split(*split[order]) for name, split in super().splits().items()}


class DoubleInputs(Small):
    def splits(self) -> dict[str, Split]:
        splits = super().splits()
        return {
            name: Split({"image": split.inputs["image"].astype(np.float64)}, split.targets)
            for name, split in splits.items()
        }


class OtherInputs(Small):
    def splits(self) -> dict[str, Split]:
        return {
            name: Split({"picture": split.inputs["image"]}, split.targets) for name, split in super().splits().items()
        }


class OtherShape(Small):
    def signature(self) -> dict[str, Any]:
        spec = {"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 9]}
        return {**super().signature(), "inputs": [spec]}


class OtherRange(Small):
    def signature(self) -> dict[str, Any]:
        spec = {**super().signature()["inputs"][0], "range": [5, 9]}
        return {**super().signature(), "inputs": [spec]}


class FixedBatch(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 10]}]}


class NoDtype(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "outputs": [{"name": "logits", "shape": ["batch", 10]}]}


class SignatureOfArrays(Small):
    def signature(self) -> dict[str, Any]:
        return {**super().signature(), "labels": np.arange(10)}


class StepsOfArrays(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "input": "image", "steps": [{"op": "normalize", "mean": np.zeros(1)}]}


class StepsWithoutInput(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "steps": []}


class UnknownStep(Small):
    def preprocess(self) -> dict[str, Any]:
        return {"format": 1, "input": "image", "steps": [{"op": "normalise"}]}


class StepsOfAnotherSize(Small):
    def preprocess(self) -> dict[str, Any]:
        document = super().preprocess()
        return {**document, "steps": [step for step in document["steps"] if step["op"] != "resize"]}


class OwnWayIn(Small):
    def inputs_of(self, raw: Any) -> dict[str, NDArray[Any]]:
        return {"image": super().inputs_of(raw)["image"] * np.float32(2)}


class LossOfRows(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y, reduction="none")


class LossWithoutGradient(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return super().loss(out, y).detach()


class LossOfZero(Small):
    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return (out * 0).sum()


class NoPrimary(Small):
    primary = "balanced_accuracy"


class NanMetric(Small):
    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        return {"accuracy": float("nan")}


class OneAnswer(Small):
    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(out.argmax(axis=-1)[:1])


class OneVerdict(Small):
    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.all(answer == y))


class LonelyAnswers(Small):
    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a < b)


class OneSidedAgreement(Small):
    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(a <= b)


class AnswerByBatch(Small):
    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return super().answer(out - out.mean(axis=0))


class AugmentByBatch(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"] - inputs["image"].mean()}


class AugmentByChance(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"] + torch.rand(1)}


class AugmentInPlace(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"].add_(1)}


class AugmentChangesShape(Small):
    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        return {"image": inputs["image"][..., :7]}


class AugmentWithoutDraws(Small):
    augment_draws = 0


BAD_TASKS: dict[type[Digits], str] = {
    ThreeSplits: "splits are train, validation, test; expected train, validation, calibration, test",
    EmptySplit: "the test split is empty",
    SharedRows: "3 rows stand in two splits, 0 may: row 0 of calibration stands in train too",
    StraddlingGroup: "group 39 straddles train and validation",
    UnseededSplits: "splits differ when drawn again",
    DoubleInputs: "input 'image' is float64, the signature has float32",
    OtherInputs: r"has inputs \['picture'\], not \['image'\]",
    OtherShape: r"input 'image' has shape \[40, 1, 8, 8\], the signature has \['batch', 1, 8, 9\]",
    OtherRange: r"input 'image' has numbers outside of the signature's range \[5, 9\]",
    FixedBatch: "logits: the first axis is the batch, by name",
    NoDtype: "the signature's outputs need name, dtype and shape",
    SignatureOfArrays: "the signature is not JSON data",
    StepsOfArrays: "preprocess is not JSON data",
    StepsWithoutInput: "preprocess needs format, steps, and as input one of image",
    UnknownStep: "preprocess doesn't run without torch: .*no plug-in 'normalise'",
    StepsOfAnotherSize: r"preprocess: input 'image' has shape \[2, 1, 9, 9\]",
    OwnWayIn: "inputs_of and the steps of preprocess give other arrays",
    LossOfRows: "loss is no finite scalar with a gradient",
    LossWithoutGradient: "loss is no finite scalar with a gradient",
    LossOfZero: "loss gives outputs no gradient",
    NoPrimary: "metrics are accuracy, macro_f1; the primary 'balanced_accuracy' is missing",
    NanMetric: "metrics are not finite floats",
    OneAnswer: "answer gives 1 answers for 32 rows",
    OneVerdict: "correct is not one bool a row",
    LonelyAnswers: "an answer doesn't agree with itself",
    OneSidedAgreement: r"agree\(a, b\) and agree\(b, a\) differ",
    AnswerByBatch: "a row's answer depends on the other rows",
    AugmentByBatch: "augment of a row depends on its batch or on chance",
    AugmentByChance: "augment of a row depends on its batch or on chance",
    AugmentInPlace: "augment changes its inputs in place",
    AugmentChangesShape: "augment changes the shape or dtype of 'image'",
    AugmentWithoutDraws: "augment is never called while augment_draws is 0",
}


@pytest.mark.parametrize("task", BAD_TASKS, ids=lambda kind: kind.__name__)
def test_a_bad_task_is_named(task: type[Digits]) -> None:
    raw = grey(9) if task in {OwnWayIn, StepsOfAnotherSize} else None
    with pytest.raises(AssertionError, match=BAD_TASKS[task]) as broken:
        check_task(task(), raw)
    assert "\n" not in str(broken.value)


def test_rows_that_the_data_repeats_may_be_allowed() -> None:
    check_task(SharedRows(), duplicates=3)


def test_a_preprocessing_step_that_imports_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_step.py").write_text("def heavy(values):\n    import torch\n    return values\n")
    installed = tmp_path / "heavy-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[slimline.preprocess]\nheavy = heavy_step:heavy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    class Heavy(Small):
        def preprocess(self) -> dict[str, Any]:
            return {"format": 1, "input": "image", "steps": [{"op": "heavy"}]}

    with pytest.raises(AssertionError, match="preprocess doesn't run without torch: ModuleNotFoundError"):
        check_task(Heavy(), raw=grey(8))
