"""The task keeps its promises: the same rows from every format, tokens, pairs, a trimmed vocabulary."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimline import preprocess
from slimline.errors import ParamsError
from slimline.pruning import trimming
from slimline.testing import check_task
from tests.encoders import texts, write_table
from tests.tasks.text.conftest import WRITERS, make

pytest.importorskip("tokenizers")
RARE = "zwieback quixotic marketing"


def test_the_task_keeps_the_promises_of_a_task(folder: Path) -> None:
    task = make(str(write_table(folder / "t.csv", texts(300))))
    check_task(task, ["the bank said a new rate", "goal"])
    check_task(make(task.source.data, token_dropout=0.1), ["the bank said a new rate", "goal"])


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_reads_the_same_in_every_format(folder: Path, suffix: str) -> None:
    found = texts(120)
    table = WRITERS[suffix](folder / f"t{suffix}", found)
    splits = make(str(table)).splits()
    expected = make(str(write_table(folder / "expected.csv", found))).splits()
    assert tuple(splits) == tuple(expected)
    assert {name: split.digest for name, split in splits.items()} == {n: s.digest for n, s in expected.items()}


def test_a_batch_is_as_long_as_its_longest_row(folder: Path) -> None:
    split = make(str(write_table(folder / "t.csv", texts(200)))).splits()["train"]
    whole = split.inputs["input_ids"]
    for at in range(10):
        batch, _ = split[slice(at, at + 1)]
        assert batch["input_ids"].shape[1] == int((whole[at] != 0).sum())
    wider, _ = split[slice(0, 50)]
    assert wider["input_ids"].shape[1] == int((whole[:50] != 0).sum(1).max())


@pytest.mark.parametrize("vocabulary", ["all", "train"])
def test_the_signature_says_which_numbers_there_are(folder: Path, vocabulary: str) -> None:
    """Trimming the tokenizer changes no numbers."""
    task = make(str(write_table(folder / "t.csv", texts(200))), vocabulary=vocabulary)
    words = json.loads((folder / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    (spec,) = task.signature()["inputs"]
    assert spec["range"] == [0, max(words.values())]


def test_a_unigram_tokenizer_is_trimmed_to_its_training_texts(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    found = texts(300)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<pad>", "<unk>"], unk_token="<unk>")  # noqa: S106
    tokenizer.train_from_iterator([*(each for each, _ in found), *[RARE] * 30], trainer)
    tokenizer.save(str(folder / "unigram.json"))
    table = str(write_table(folder / "t.csv", found))
    whole, trimmed = (
        make(table, tokenizer="unigram.json", vocabulary=each, max_length=64) for each in ("all", "train")
    )
    for name, split in whole.splits().items():
        same = np.array_equal(split.inputs["input_ids"], trimmed.splits()[name].inputs["input_ids"])
        assert same or name != "train"
    assert whole.signature() == trimmed.signature()
    (note,) = trimmed.notes
    assert "pieces stay" in note
    assert not note.startswith("task:")  # whoever shows it says what it is about
    pieces = [
        len(trimming.numbers(json.loads(Path(task.preprocess()["steps"][0]["file"]).read_text())))
        for task in (whole, trimmed)
    ]
    assert pieces[1] < pieces[0]


def test_pairs_have_types(folder: Path) -> None:
    found = [(a, b[::-1], label) for (a, label), (b, _) in zip(texts(200), texts(200, seed=2), strict=True)]
    table = write_table(folder / "t.csv", found, ("first", "second", "label"))
    task = make(str(table), text=["first", "second"])
    split = task.splits()["train"]
    assert set(split.inputs) == {"input_ids", "token_type_ids"}
    assert int(split.inputs["token_type_ids"].max()) == 1
    assert task.preprocess()["columns"] == ["first", "second"]
    assert "columns" not in make(str(table)).preprocess()  # what releases of the column text always said
    arrays = preprocess.run(task.preprocess(), [["the bank", "a goal"]])
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_token_dropout_takes_tokens_out_and_nothing_else(folder: Path) -> None:
    found = [(a, b[::-1], label) for (a, label), (b, _) in zip(texts(400), texts(400, seed=2), strict=True)]
    table = write_table(folder / "t.csv", found, ("first", "second", "label"))
    task = make(str(table), text=["first", "second"], max_length=40, token_dropout=0.2)
    split = task.splits()["train"]
    inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in split[slice(0, 200)][0].items()}
    draws = torch.rand(200, task.augment_draws, generator=torch.Generator().manual_seed(0))
    seen = task.augment(inputs, draws)
    special, pad = set(task._special.tolist()), task._whole.pad_id
    gone = total = 0
    for row in range(200):
        before, after = ([*zip(*(each[name][row].tolist() for name in inputs), strict=True)] for each in (inputs, seen))
        assert len(after) == len(before)
        before, after = ([pair for pair in each if pair != (pad, 0)] for each in (before, after))
        rest = iter(before)
        assert all(pair in rest for pair in after)  # in their order
        assert [pair for pair in after if pair[0] in special] == [pair for pair in before if pair[0] in special]
        gone, total = gone + len(before) - len(after), total + sum(token not in special for token, _ in before)
    assert 0.17 < gone / total < 0.23
    again = task.augment({name: value[:3] for name, value in inputs.items()}, draws[:3])
    assert torch.equal(again["input_ids"], seen["input_ids"][:3])  # whatever the batch


def test_without_token_dropout_training_sees_the_texts(folder: Path) -> None:
    assert make("t.csv").augment_draws == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"labels": ["a", "a"]}, "task.args.labels"),
        ({"answer": "several"}, "'several' is not one of one, many, number"),
        ({"text": ["a", "b", "c"]}, "one column or two"),
        ({"token_dropout": 1.0}, "task.args.token_dropout: 1.0 is no share"),
        ({"answer": "number"}, "task.args.labels: of answer: one and many alone, not of number; take it out"),
        ({"tolerance": 0.5}, "task.args.tolerance: of answer: number alone, not of one; take it out"),
        ({"max_length": "16"}, "task.args.max_length: expected integer, found '16'"),
        ({"max_length": 16.5}, "task.args.max_length: expected integer, found 16.5"),
        ({"token_dropout": "0.1"}, "task.args.token_dropout: expected number, found '0.1'"),
        ({"test": "a fifth"}, "task.args.test: expected number, found 'a fifth'"),
        ({"seed": "0"}, "task.args.seed: expected integer, found '0'"),
        ({"answer": ["one"]}, "task.args.answer: ['one'] is not one of one, many, number"),
        ({"text": ["a", 3]}, "task.args.text.1: expected text | list of text, found 3"),
        ({"tokenizer": ["m"]}, "task.args.tokenizer: expected text, found ['m']"),
        ({"answer": "many", "threshold": "0.5"}, "task.args.threshold: expected number | fitted, found '0.5'"),
        ({"answer": "many", "threshold": 1}, "task.args.threshold: 1: a number between 0 and 1 is expected, or fitted"),
        ({"max_lenght": 9}, "task.args.max_lenght: unknown key. Did you mean 'max_length'?"),
        ({"labels": "ab"}, "task.args.labels: expected list of (text | integer | number), found 'ab'"),
        ({"labels": ["a"]}, "task.args.labels: two labels or more, each once"),
        (
            {"labels": {0: "a", 1: "b"}},
            "task.args.labels: expected list of (text | integer | number), found {0: 'a', 1",
        ),
        ({"labels": ["a", None]}, "task.args.labels.1: expected list of (text | integer | number), found None"),
        (
            {"labels": [True, False]},
            "labels.0: expected list of (text | integer | number), found True; YAML takes yes, no, on and off for that",
        ),
        ({"label": False}, "task.args.label: expected text, found False; YAML takes yes, no, on and off for that: put"),
    ],
)
def test_wrong_arguments_are_named(folder: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        make("t.csv", **args)
