"""A teacher that was taken as it is and doesn't know the task: said before anything learns from it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import metrics, params
from slimline.errors import DataError, ParamsError
from slimline.models.cnn import Cnn
from slimline.stage import Stage
from slimline.task import Split
from slimline.teachers import label_order, number_scale
from tests.encoders import LABELS, WORDS, texts, write_table, write_tokenizer

WHERE = "params.yaml: teacher.weights"
TOPICS = ["acq", "earn", "ship", "trade"]


def topics(rows: int, noise: float = 1.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return outputs that know their labels, and the labels: the first two often hold together."""
    rng = np.random.default_rng(1)
    y = (rng.random((rows, 4)) < [0.4, 0.2, 0.1, 0.05]).astype(np.float32)
    y[:, 1] = np.maximum(y[:, 1], y[:, 0] * (rng.random(rows) < 0.5))
    return (3 * y + noise * rng.normal(size=y.shape)).astype(np.float32), y


def test_outputs_that_know_their_labels_pass() -> None:
    for rows, noise in ((60, 1.0), (2000, 8.0)):
        label_order.check_many(*topics(rows, noise), TOPICS, WHERE)


def test_frequencies_alone_are_chance_however_many_answers_are_right() -> None:
    """Each label's score is how frequent it is: most single answers are right, and no row is told from another."""
    _, y = topics(500)
    out = np.broadcast_to(y.mean(0) - 0.5, y.shape)
    assert np.mean((out > 0) == (y > 0)) > 0.7
    with pytest.raises(
        DataError, match=r"curve 0\.50; shuffled rows reach 0\.50\); no other order of labels helps: is"
    ):
        label_order.check_many(out, y, TOPICS, WHERE)


def said_of(out: NDArray[Any], y: NDArray[Any]) -> str:
    try:
        label_order.check_many(out, y, TOPICS, WHERE)
    except DataError as error:
        return str(error)
    return ""


def test_noise_is_chance_and_no_order_of_it_is_suggested() -> None:
    """Each may happen by chance once in a hundred times."""
    rng = np.random.default_rng(3)
    _, y = topics(100)
    said = [said_of(rng.normal(size=y.shape), y) for _ in range(100)]
    assert said.count("") <= 4
    assert sum("in the order [" in each for each in said) <= 4


def test_the_order_that_several_labels_a_row_stand_in_is_found() -> None:
    out, y = topics(300)
    order = [2, 3, 1, 0]  # output 0 means label 2
    message = (
        r"^params\.yaml: teacher\.weights: on 300 validation rows .* \(mean area under the ROC curve 0\.\d\d; shuffled "
        r"rows reach 0\.\d\d\); in the order \['ship', 'trade', 'earn', 'acq'\] it would be 0\.9\d: is params\.yaml"
    )
    with pytest.raises(DataError, match=message) as caught:
        label_order.check_many(out[:, order], y, TOPICS, WHERE)
    assert "\n" not in str(caught.value)


def test_a_label_that_no_row_has_takes_the_place_that_is_left() -> None:
    out, y = topics(300)
    y[:, 1] = 0
    with pytest.raises(DataError, match=r"in the order \['ship', 'trade', 'earn', 'acq'\] it"):
        label_order.check_many(out[:, [2, 3, 1, 0]], y, TOPICS, WHERE)


def test_few_rows_of_several_labels_prove_nothing() -> None:
    out, y = topics(label_order.ROWS - 1)
    label_order.check_many(-out, y, TOPICS, WHERE)
    label_order.check_many(-out, np.zeros_like(y), TOPICS, WHERE)


def prices(rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(2)
    y = rng.gamma(2.0, 50.0, rows)
    return y + rng.normal(0, 40.0, rows), y


def test_numbers_that_know_their_targets_pass() -> None:
    number_scale.check(*prices(200), WHERE)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t / 1000, r"7\d\d\.\d · number [+-]\S+ would have R² 0\.7\d: is the column .*unit"),
        (lambda t: 200 - t, r"-0\.\d+ · number \+\d+\.?\d* would have R² 0\.7\d: is the column .*unit"),
        (lambda t: np.random.default_rng(5).permutation(t), "no other unit or scale helps: is the column"),
        (lambda t: np.full_like(t, 100.0), "no other unit or scale helps: is the column"),
        (lambda t: np.full_like(t, np.nan), "no other unit or scale helps: is the column"),
    ],
    ids=["unit", "sign", "another column", "a constant", "no number"],
)
def test_numbers_no_nearer_than_the_mean_are_an_error_that_says_what_to_look_at(
    spoil: Callable[[Any], Any], said: str
) -> None:
    answers, y = prices(400)
    with pytest.raises(DataError, match=r"^params\.yaml: teacher\.weights: on 400 .*R² (-|nan).*; " + said) as caught:
        number_scale.check(spoil(answers), y, WHERE)
    assert "\n" not in str(caught.value)


def test_few_numbers_and_one_number_prove_nothing() -> None:
    answers, y = prices(number_scale.ROWS - 1)
    number_scale.check(-answers, y, WHERE)
    number_scale.check(np.arange(50), np.ones(50), WHERE)


class Counts(nn.Module):
    """Adds up what each token says of each output."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.says = nn.Embedding(96, outputs, padding_idx=0)

    def forward(self, input_ids: Tensor, **_: Tensor) -> Tensor:
        out: Tensor = self.says(input_ids).sum(1)
        return out


Teach = Callable[..., None]


def teacher_script(project: Path) -> Any:
    spec = importlib.util.spec_from_file_location("teacher_script", project / "stages" / "teacher.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_stage_does_not_train_from_a_part_of_a_network(
    document: dict[str, Any], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Cnn()[-1].state_dict(prefix="11."), "last.pt")
    teacher = {"model": {"name": "cnn"}, "weights": "last.pt", "training": {"epochs": 1, "lr": 0.01}}
    Path("params.yaml").write_text(yaml.safe_dump({**document, "teacher": teacher}))
    with pytest.raises(ParamsError, match=rf"^{WHERE}: last\.pt: it has no 0\.weight \(15 of 20 tensors are missing"):
        teacher_script(project).main(Stage("teacher", params.load(), None))


@pytest.fixture
def teach(document: dict[str, Any], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teach:
    """Run the teacher stage on rows with a model of these weights [tokens × outputs]."""
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "model")
    script = teacher_script(project)

    def run(
        args: dict[str, Any], says: Tensor, rows: list[tuple[str, str]], training: dict[str, Any] | None = None
    ) -> None:
        write_table(tmp_path / "t.csv", rows)
        torch.save({"says.weight": says}, tmp_path / "w.pt")
        task = {"data": "t.csv", "tokenizer": "model", "max_length": 48, "validation": 0.4} | args
        model = {"name": f"{__name__}:Counts", "args": {"outputs": says.shape[1]}}
        written = {
            "task": {"name": "text", "args": task}, "trust": [model["name"]], "export": document["export"],
            "teacher": {"model": model, "weights": "w.pt", "training": training},
        }  # fmt: skip
        Path("params.yaml").write_text(yaml.safe_dump(written))
        script.main(Stage("teacher", params.load(), None))

    return run


def of_words(columns: dict[str, int], scale: float = 1.0) -> Tensor:
    """Return weights by which each label's words speak for its column."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file("model/tokenizer.json")
    says = torch.zeros(96, max(columns.values()) + 1)
    for label, column in columns.items():
        for word in WORDS[label]:
            says[tokenizer.token_to_id(word), column] = scale
    return says


def mixed(rows: int) -> list[tuple[str, str]]:
    """Return texts, each second of which is of two labels."""
    found = texts(rows)
    both = [(f"{a} {b}", f"{x},{y}") for (a, x), (b, y) in zip(found[::2], texts(rows, 1)[1::2], strict=True)]
    return [*both, *found[: rows // 2]]


def test_the_stage_takes_a_teacher_of_several_labels_in_their_order_alone(teach: Teach) -> None:
    right = {label: at for at, label in enumerate(LABELS)}
    args = {"answer": "many", "labels": list(LABELS)}
    teach(args, of_words(right), mixed(200))
    turned = {label: (at + 1) % 3 for at, label in enumerate(LABELS)}
    meant = [LABELS[2], LABELS[0], LABELS[1]]
    with pytest.raises(DataError, match=rf"^params\.yaml: teacher\.weights: .* in the order \{meant}"[:-1]):
        teach(args, of_words(turned), mixed(200))


def test_the_stage_takes_a_teacher_of_numbers_in_their_unit_alone(teach: Teach) -> None:
    columns = dict.fromkeys(LABELS, 0)
    words = {word for label in LABELS for word in WORDS[label]}
    rows = [(text, str(0.5 * sum(word in words for word in text.split()))) for text, _ in texts(200)]
    args = {"answer": "number", "tolerance": 0.25}
    teach(args, of_words(columns, 0.5), rows)
    with pytest.raises(DataError, match=r"teacher\.weights: .*; 0\.01 · number \+0 would have R² 1\.00"):
        teach(args, of_words(columns, 50.0), rows)


def test_a_teacher_that_few_rows_leave_open_is_taken_and_told(teach: Teach, capsys: pytest.CaptureFixture[str]) -> None:
    """Of three labels as large, it knows the words of one and answers another for the rest of the rows."""
    says = of_words({LABELS[0]: 0, LABELS[1]: 1, LABELS[2]: 2})
    rows = texts(100)
    few = [(text, label if at % 9 else LABELS[at % 3]) for at, (text, label) in enumerate(rows)]
    spoilt = [(text, LABELS[(LABELS.index(label) + (at % 5 > 1)) % 3]) for at, (text, label) in enumerate(few)]
    teach({"answer": "one", "labels": list(LABELS)}, says, spoilt)
    assert "teacher: not surely better than guessing: " in capsys.readouterr().out


@pytest.mark.parametrize("knows", [False, True])
def test_a_trained_teacher_is_judged_by_the_answers_that_the_loop_has(
    teach: Teach, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], knows: bool
) -> None:
    asked: list[int] = []
    outputs = metrics.outputs

    def counted(model: nn.Module, split: Split) -> NDArray[np.float32]:
        asked.append(len(split))
        return outputs(model, split)

    monkeypatch.setattr(metrics, "outputs", counted)
    says = of_words({label: at if knows else (at + 1) % 3 for at, label in enumerate(LABELS)})
    training = {"epochs": 2, "batch_size": 32, "lr": 1e-9}
    teach({"answer": "one", "labels": list(LABELS)}, says, texts(120), training)
    assert len(asked) == 2, "once an epoch"
    said = "teacher: no better than guessing: " in (out := capsys.readouterr().out)
    assert said is not knows
    assert ("; train it longer or with more rows" in out) is not knows
    assert "task.args.labels" not in out, "the order of labels isn't what is wrong"
