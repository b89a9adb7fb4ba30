"""One label, any of several, or a number; what each class weighs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimline import artifact
from slimline.errors import DataError, ParamsError
from slimline.project import own_data
from slimline.tasks.text import Text, text
from slimline.testing import check_task
from slimline.training.losses import soft
from tests.encoders import LABELS, texts, write_table
from tests.tasks.text.conftest import make

pytest.importorskip("tokenizers")


@pytest.mark.parametrize(
    ("answer", "labels", "args", "targets"),
    [
        pytest.param(
            "many", ["sport,money", "science", ""], {}, [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], id="many"
        ),
        pytest.param("number", ["0.5", "-3", "1e2"], {"tolerance": 0.1}, [0.5, -3.0, 100.0], id="number"),
    ],
)
def test_other_answers(folder: Path, answer: str, labels: list[str], args: dict[str, Any], targets: list[Any]) -> None:
    found = [(a, labels[at % 3]) for at, (a, _) in enumerate(texts(300))]
    table = str(write_table(folder / "t.csv", found))
    own = {"labels": list(LABELS)} if answer == "many" else {}
    task = text(data=table, tokenizer="model", max_length=16, answer=answer, **own, **args)
    check_task(task, ["goal", "bank"])
    split = task.splits()["train"]
    assert {json.dumps(np.asarray(row).tolist()) for row in split.targets} == {json.dumps(row) for row in targets}


def test_numbers_have_a_decimal_comma_where_semicolons_separate(folder: Path) -> None:
    labels = ["3,5", "-1", "0,25"]
    rows = "".join(f"{each};{labels[at % 3]}\r\n" for at, (each, _) in enumerate(texts(300)))
    (folder / "t.csv").write_bytes(b"\xef\xbb\xbf" + f"text;label\r\n{rows}".encode())
    task = text(data="t.csv", tokenizer="model", max_length=16, answer="number", tolerance=0.1)
    assert set(task.splits()["train"].targets.tolist()) == {3.5, -1.0, 0.25}


@pytest.mark.parametrize("files", ["one", "two"])
@pytest.mark.parametrize(("mark", "comma"), [(";", "3,5"), (";", "1.234,5"), (";", "2.000.000"), ("\t", "3,5")])
def test_a_point_that_may_stand_between_thousands_is_asked_about(
    folder: Path, mark: str, comma: str, files: str
) -> None:
    """1.234 was read as a little more than one, in a column of 1234,5."""
    suffix = "tsv" if mark == "\t" else "csv"
    labels = ["7", "0.5", "1.234", "12.5", comma, "1.234"]
    rows = [f"{each}{mark}{labels[at % 6]}\n" for at, (each, _) in enumerate(texts(60))]
    train, test = (rows, rows) if files == "one" else (rows[:4], rows[4:])
    for name, found in (("train", train), ("test", test)):
        (folder / f"{name}.{suffix}").write_text("".join([f"text{mark}label\n", *found]))
    one, other = f"train.{suffix}", f"test.{suffix}"
    args = {"data": one if files == "one" else {"train": one, "test": other}, "answer": "number", "tolerance": 0.1}
    task = text(tokenizer="model", max_length=16, **args)
    place = f"{one}: row 5" if files == "one" else f"{other}: row 1"
    message = (
        f"{one}: row 3: column 'label': '1.234' may be 1234 or have a decimal point, since {place} has '{comma}'; "
        "write 1234, or 1.2340"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        task.splits()
    with pytest.raises(DataError, match=re.escape(message)):
        own_data.describe(Path(one if files == "one" else "."), own_data.Columns(answer="number"))


def test_points_that_mean_one_thing_are_read(folder: Path) -> None:
    labels = ["1.234,5", "-2.500.000", "0,5", "0.25", "12.5", "1234.567"]
    rows = "".join(f"{each};{labels[at % 6]}\n" for at, (each, _) in enumerate(texts(300)))
    (folder / "t.csv").write_text(f"text;label\n{rows}")
    task = text(data="t.csv", tokenizer="model", max_length=16, answer="number", tolerance=0.1)
    expected = {np.float32(each).item() for each in (1234.5, -2.5e6, 0.5, 0.25, 12.5, 1234.567)}
    assert set(task.splits()["train"].targets.tolist()) == expected


def test_class_weights_count_each_class_the_same(folder: Path) -> None:
    import torch

    found = [(a, b) for a, b in texts(600) if b != "money" or "bank" in a]
    task = make(str(write_table(folder / "t.csv", found)), class_weights="balanced")
    targets = torch.from_numpy(task.splits()["train"].targets)
    out = torch.zeros(len(targets), 3, requires_grad=True)
    task.loss(out, targets).backward()
    assert out.grad is not None
    pull = torch.zeros(3).index_add(0, targets, out.grad[torch.arange(len(targets)), targets])
    assert torch.allclose(pull, pull.mean().expand(3), rtol=1e-4)


def several(folder: Path, **args: Any) -> Text:
    """Return the task of texts each second of which is of two labels, ``money`` of a few alone."""
    marks = ["sport,science", "sport", "science", "sport,science", "science,money", ""]
    rows = [(a, marks[at % 6]) for at, (a, _) in enumerate(texts(600))]
    data = str(write_table(folder / "t.csv", rows))
    return text(data=data, tokenizer="model", labels=list(LABELS), max_length=16, answer="many", **args)


def test_class_weights_make_a_label_count_as_much_as_its_absence(folder: Path) -> None:
    task = several(folder, class_weights="balanced")
    targets = torch.from_numpy(task.splits()["train"].targets)
    assert len(set(targets.mean(0).tolist())) > 1
    out = torch.zeros(len(targets), 3, requires_grad=True)
    task.loss(out, targets).backward()
    assert out.grad is not None
    pulls = torch.where(targets > 0, out.grad, 0).sum(0)
    torch.testing.assert_close(pulls, -torch.where(targets > 0, 0, out.grad).sum(0), rtol=1e-4, atol=0)


def test_class_weights_of_many_labels_are_those_of_their_rows(folder: Path) -> None:
    task = several(folder, class_weights=[1, 4, 2.5])
    task.splits()
    out, y = torch.tensor([[0.3, -1.0, 2.0], [0.1, 0.4, -0.2]]), torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    p, weights = torch.sigmoid(out), torch.tensor([1, 4, 2.5])
    expected = -(weights * y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(task.loss(out, y), expected)


@pytest.mark.parametrize("answer", ["one", "many"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("balance", ": expected balanced | list of number | null, found 'balance'"),
        ({"sport": 1.0}, ": expected balanced | list of number | null, found {'sport': 1.0}"),
        ([1, 2, "3"], ".2: expected balanced | list of number | null, found '3'"),
        ([1, 2], ": 3 numbers, one a label, found 2"),
        ([1, -2, 3], ": -2: a finite number, 0 or more, is expected"),
        ([1, 2, float("nan")], ": nan: a finite number, 0 or more, is expected"),
    ],
)
def test_wrong_class_weights_are_named_with_file_and_key(answer: str, weights: Any, message: str) -> None:
    args = {"data": "t.csv", "tokenizer": "m", "labels": list(LABELS), "answer": answer, "class_weights": weights}
    with pytest.raises(ParamsError) as caught:
        artifact.build_task(artifact.Named("text", args), "params.yaml: task")
    assert str(caught.value) == f"params.yaml: task.args.class_weights{message}"


@pytest.mark.parametrize("answer", ["one", "many"])
@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ({"art": 1}, "no test row has the label 'art' (1 row in all), so nothing measures it"),
        (
            {"a": 2, "b": 1, "c": 1},
            "no test row has the labels 'b' (1 row in all) and 'c' (1 row in all), so nothing measures them",
        ),
        ({}, None),
    ],
)
def test_labels_without_a_test_row_are_told(folder: Path, rows: dict[str, int], note: str | None, answer: str) -> None:
    found = [*texts(90), *((f"a new goal of {name * (1 + at)}", name) for name in rows for at in range(rows[name]))]
    data = str(write_table(folder / "t.csv", found))
    task = make(data, labels=[*LABELS, *rows], answer=answer)
    task.splits()
    assert task.notes == ([note] if note else [])


def test_a_list_of_labels_may_be_pythons(folder: Path) -> None:
    cells = ["['sport', 'money']", '["science"]', "[]"]
    data = write_table(folder / "t.csv", [(a, cells[at % 3]) for at, (a, _) in enumerate(texts(300))])
    found = {tuple(row) for row in make(str(data), answer="many").splits()["train"].targets.tolist()}
    assert found == {(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "task.args.tolerance: missing; answer: number needs it ('slimline init' writes it)"),
        ({"tolerance": float("nan")}, "task.args.tolerance: nan: a number, 0 or more, is expected"),
        ({"tolerance": "a bit"}, "task.args.tolerance: expected number, found 'a bit'"),
    ],
)
def test_numbers_need_a_tolerance(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        text(data="t.csv", tokenizer="model", answer="number", **args)


def test_errors_of_numbers_count_in_the_spread_of_the_training_targets(folder: Path) -> None:
    """In the targets' own unit a loss of prices was some 10^10, and max_loss and alpha meant something else."""
    found = [(a, str(300_000 + 1000 * (at % 7))) for at, (a, _) in enumerate(texts(300))]
    task = text(data=str(write_table(folder / "t.csv", found)), tokenizer="model", answer="number", tolerance=500.0)
    y = torch.from_numpy(task.splits()["train"].targets)
    assert task.loss(y[:, None] * 0 + y.mean(), y).item() == pytest.approx(1, rel=1e-3)
    assert soft.divergence(task, y[:, None] + 2000, y[:, None], 1.0).item() == pytest.approx(1, rel=0.1)
