"""One label, any of several, or a number; what each class weighs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimline.errors import DataError, ParamsError
from slimline.tasks.text import Text, text
from slimline.testing import check_task
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
    with pytest.raises(DataError, match=r"task\.args\.class_weights: 'balanced' or 3 numbers, one a label"):
        several(folder, class_weights=[1, 2]).splits()


def test_a_list_of_labels_may_be_pythons(folder: Path) -> None:
    cells = ["['sport', 'money']", '["science"]', "[]"]
    data = write_table(folder / "t.csv", [(a, cells[at % 3]) for at, (a, _) in enumerate(texts(300))])
    found = {tuple(row) for row in make(str(data), answer="many").splits()["train"].targets.tolist()}
    assert found == {(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "task.args.tolerance: missing; answer: number needs it ('slimline init' writes it)"),
        ({"tolerance": "a bit"}, "task.args.tolerance: 'a bit': a number, 0 or more, is expected"),
    ],
)
def test_numbers_need_a_tolerance(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        text(data="t.csv", tokenizer="model", answer="number", **args)
