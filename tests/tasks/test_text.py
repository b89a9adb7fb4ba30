"""A table of texts: splits, tokens, wrong data by file and row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slimline import artifact, labelled_rows, preprocess, trimming
from slimline.baselines import tfidf_svm
from slimline.errors import DataError, ParamsError
from slimline.project import own_data
from slimline.task import SPLITS, Split
from slimline.tasks.text import Text, text
from slimline.testing import check_task
from tests.encoders import LABELS, texts, write_table, write_tokenizer

pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer, in which the task keeps its rows."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / "model")
    return tmp_path


RARE = "zwieback quixotic marketing"


def make(data: Any, **args: Any) -> Text:
    return text(**{"data": data, "tokenizer": "model", "labels": list(LABELS), "max_length": 16} | args)


def rows(splits: dict[str, Split]) -> dict[str, set[bytes]]:
    return {name: {row.tobytes() for row in split.inputs["input_ids"]} for name, split in splits.items()}


def write_jsonl(path: Path, found: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in found))
    return path


def write_parquet(path: Path, found: list[tuple[str, str]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": [a for a, _ in found], "label": [b for _, b in found]}), path)
    return path


WRITERS: dict[str, Callable[[Path, list[tuple[str, str]]], Path]] = {
    ".csv": write_table, ".tsv": write_table, ".jsonl": write_jsonl, ".parquet": write_parquet,
}  # fmt: skip


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


def test_splits_are_whole_disjoint_and_in_proportion(folder: Path) -> None:
    splits = make(str(write_table(folder / "t.csv", texts(600)))).splits()
    assert set(splits) == set(SPLITS)
    assert sum(map(len, splits.values())) == 600
    assert 100 <= len(splits["test"]) <= 140
    for name, split in splits.items():
        assert set(np.unique(split.targets)) == {0, 1, 2}, name
    seen: set[bytes] = set()
    for own in rows(splits).values():
        assert not seen & own
        seen |= own


def test_groups_never_straddle(folder: Path) -> None:
    found = [(a, b, f"author {at % 40}") for at, (a, b) in enumerate(texts(400))]
    splits = make(
        str(write_table(folder / "t.csv", found, ("text", "label", "author"))), group="author", labels=list(LABELS)
    ).splits()
    author = {}
    task = make(str(folder / "t.csv"), group="author")
    for name, split in splits.items():
        for row in split.inputs["input_ids"]:
            author.setdefault(row.tobytes(), name)
    for at in range(40):
        mine = [a for a, _, who in found if who == f"author {at}"]
        where = {author[row.tobytes()] for row in task.tokens(mine)["input_ids"]}
        assert len(where) == 1


@pytest.mark.parametrize("blank", [None, "", " ", float("nan")], ids=["null", "empty", "space", "nan"])
def test_rows_without_a_group_are_groups_of_their_own(folder: Path, blank: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    found = texts(200)
    known = 7.0 if blank != blank else "seven"  # noqa: PLR0124  (what is no number isn't itself)
    who = [known if at < 20 else blank for at in range(200)]
    columns = {"text": [a for a, _ in found], "label": [b for _, b in found], "who": who}
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    task = make(str(folder / "t.parquet"), group="who")
    shares = {name: len(split) for name, split in task.splits().items()}
    assert shares == pytest.approx({"train": 120, "validation": 20, "calibration": 20, "test": 40}, abs=1)
    where = {int(row): part for part in SPLITS for row in task.rows_of(part)}
    assert len({where[at] for at in range(20)}) == 1


def test_given_files_stay_what_they_are_and_leaks_go(folder: Path) -> None:
    train, test = texts(200), texts(60, seed=1)
    data = {
        "train": str(write_table(folder / "a.csv", [*train, *test[:5]])),
        "test": str(write_table(folder / "b.csv", test)),
    }
    task = make(data)
    splits = task.splits()
    assert len(splits["test"]) == 60
    assert sum(map(len, splits.values())) == 260
    assert task.notes == ["5 rows left out: the same input, or its group, stands in a later split"]


def test_a_split_column_is_kept_to(folder: Path) -> None:
    found = [(a, b, ("train", "dev", "test")[at % 5 if at % 5 < 3 else 0]) for at, (a, b) in enumerate(texts(300))]
    task = make(str(write_table(folder / "t.csv", found, ("text", "label", "part"))), split="part")
    splits = task.splits()
    assert (len(splits["validation"]), len(splits["test"])) == (60, 60)


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


def test_a_label_of_other_splits_alone_is_told_by_its_row(folder: Path) -> None:
    rows = [(text, label, "test" if at % 5 == 0 else "train") for at, (text, label) in enumerate(texts(60))]
    rows[10] = (rows[10][0], "sprot", "test")
    write_table(folder / "t.csv", rows, ("text", "label", "split"))
    asked = {"data": str(folder / "t.csv"), "split": "split", "labels": [*LABELS, "sprot"]}
    message = (
        r"t\.csv: row 11: label 'sprot' has no training row \(1 such in task.args.labels\)\. Did you mean 'sport'\?"
    )
    with pytest.raises(DataError, match=message):
        text(tokenizer=str(folder / "model"), **asked).splits()


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no such column": (
        lambda f: write_table(f / "t.csv", texts(30)), {"label": "lable"},
        r"t.csv: no column 'lable'. Did you mean 'label'\? It has: text, label",
    ),
    "unknown label in test": (
        lambda f: {"train": str(write_table(f / "a.csv", texts(60))),
                   "test": str(write_table(f / "b.csv", [*texts(9, 1), ("goal", "sprot")]))}, {},
        r"b.csv: row 10: unknown label 'sprot'. Did you mean 'sport'\?",
    ),
    "empty text": (
        lambda f: write_table(f / "t.csv", [*texts(30), (" ", "sport")]), {}, r"t.csv: row 31: column 'text': "),
    "no label": (lambda f: write_table(f / "t.csv", [*texts(30), ("goal", "")]), {}, r"t.csv: row 31: .*no label"),
    "empty class": (
        lambda f: write_table(f / "t.csv", texts(30)), {"labels": [*LABELS, "art"]},
        r"t.csv: label 'art' has no training row",
    ),
    "undecodable bytes": (
        lambda f: (f / "t.csv").write_bytes(b"text,label\ngoal,sport\n\xff\xfe,sport\n") and f / "t.csv", {},
        r"t.csv: line 3: not UTF-8",
    ),
    "a row too short": (
        lambda f: (f / "t.csv").write_bytes(b"text,label\ngoal,sport\nbank\n") and f / "t.csv", {},
        r"t.csv: line 3: 1 values, the header has 2",
    ),
    "no JSON": (lambda f: (f / "t.jsonl").write_text('{"text": "a", "label": "sport"}\n{') and f / "t.jsonl", {},
                r"t.jsonl: line 2: not JSON"),
    "a split that is none": (
        lambda f: write_table(f / "t.csv", [(*row, "trian") for row in texts(30)], ("text", "label", "part")),
        {"split": "part"}, r"t.csv: row 1: column 'part': 'trian' is no split",
    ),
    "no file": (lambda f: f / "missing.csv", {}, r"missing.csv: no such file"),
    "no rows": (lambda f: write_table(f / "t.csv", []), {}, r"t.csv: no row"),
    "one text": (
        lambda f: write_table(f / "t.csv", [("the goal", LABELS[at % 3]) for at in range(200)]), {},
        r"t.csv: too few rows: none is left for \S+ \(200 in all, with 1 distinct inputs or groups, which stay tog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_told_by_file_and_row(folder: Path, case: str) -> None:
    write, args, message = WRONG[case]
    data = write(folder)
    with pytest.raises(DataError, match=message) as caught:
        make(data if isinstance(data, dict) else str(data), **args).splits()
    assert "\n" not in str(caught.value)


def test_labels_may_be_numbers_in_params_yaml(folder: Path) -> None:
    assert make("t.csv", labels=[1, 2.5, "three"]).labels == ("1", "2.5", "three")


@pytest.mark.parametrize("cell", ['["sport", "money"', "['sport', 'money'", "[sport"])
def test_a_broken_list_of_labels_is_told_by_its_row(folder: Path, cell: str) -> None:
    data = write_table(folder / "t.csv", [*texts(30), ("goal", cell)])
    with pytest.raises(DataError, match=r"t\.csv: row 31: .* is no list of labels; \[\"one\", \"two\"\] is one$"):
        make(str(data), answer="many").splits()


def test_a_list_of_labels_may_be_pythons(folder: Path) -> None:
    cells = ["['sport', 'money']", '["science"]', "[]"]
    data = write_table(folder / "t.csv", [(a, cells[at % 3]) for at, (a, _) in enumerate(texts(300))])
    found = {tuple(row) for row in make(str(data), answer="many").splits()["train"].targets.tolist()}
    assert found == {(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)}


def write_bytes(path: Path, rows: list[tuple[bytes, bytes]]) -> Path:
    """Write texts and labels as they are, in the format of the suffix."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        names = ("text", "label")
        columns = [pa.array(values, pa.binary()).view(pa.string()) for values in zip(*rows, strict=True)]
        parquet.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_bytes(b"".join(b'{"text": "%s", "label": "%s"}\n' % row for row in rows))
    else:
        mark = b"\t" if path.suffix == ".tsv" else b","
        path.write_bytes(b"".join(mark.join(row) + b"\n" for row in [(b"text", b"label"), *rows]))
    return path


@pytest.mark.parametrize("suffix", WRITERS)
def test_mistakes_are_told_alike_in_every_format(folder: Path, suffix: str) -> None:
    good = texts(60)
    train = WRITERS[suffix](folder / f"train{suffix}", good)
    wrong = WRITERS[suffix](folder / f"wrong{suffix}", [*texts(9, 1), ("goal", "sprot")])
    broken = [(a.encode(), b.encode()) for a, b in good]
    broken[41] = (b"caf\xe9 goal", b"sport")
    place = {".jsonl": "line 42", ".parquet": "row 42: column 'text'"}.get(suffix, "line 43")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (str(train), {"label": "lable"}, rf"train{suffix}: no column 'lable'"),
        ({"train": str(train), "test": str(wrong)}, {}, rf"wrong{suffix}: row 10: unknown label 'sprot'"),
        (str(train), {"labels": [*LABELS, "art"]}, rf"train{suffix}: label 'art' has no training row"),
        (str(write_bytes(folder / f"broken{suffix}", broken)), {}, rf"broken{suffix}: {place}: not UTF-8"),
    ]
    for data, args, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            make(data, **args).splits()
        assert "\n" not in str(caught.value)


def spoilt(changes: dict[int, tuple[str, str]]) -> list[tuple[str, str]]:
    return [changes.get(at, row) for at, row in enumerate(texts(60), 1)]


SPOILT: dict[str, tuple[dict[int, tuple[str, str]], str]] = {
    "two": (dict.fromkeys([3, 17], ("", "sport")), "rows 3 and 17: column 'text': empty; fill it in"),
    "many": (dict.fromkeys([3, 17, 40, 41, 42], (" ", "sport")), "rows 3, 17, 40 and 2 more: column 'text': empty"),
    "labels": (dict.fromkeys([4, 9], ("goal", "sprot")), "rows 4 and 9: unknown label 'sprot'. Did you mean 'sport'?"),
    "two kinds": (
        {3: ("", "sport"), 5: ("goal", ""), 8: ("goal", "art")},
        "row 3: column 'text': empty; fill it in, or take the row out (2 other mistakes, such as t.csv: row 5: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_all_wrong_rows_are_told_in_one_line(folder: Path, case: str) -> None:
    changes, message = SPOILT[case]
    write_table(folder / "t.csv", spoilt(changes))
    with pytest.raises(DataError, match=f"^t.csv: {re.escape(message)}") as caught:
        make("t.csv").splits()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([7], "row 7 (and 2 in other files)"),
        ([7, 9, 11], "rows 7, 9 and 11 (and 2 in other files)"),
        ([7, 9, 11, 12, 20], "rows 7, 9, 11 and 2 more (and 2 in other files)"),
    ],
)
def test_wrong_rows_of_other_files_are_counted(folder: Path, rows: list[int], said: str) -> None:
    write_table(folder / "train.csv", spoilt(dict.fromkeys(rows, ("goal", ""))))
    write_table(folder / "test.csv", spoilt(dict.fromkeys([1, 2], ("goal", ""))))
    with pytest.raises(DataError, match=rf"^train\.csv: {re.escape(said)}: no label"):
        make({"train": "train.csv", "test": "test.csv"}).splits()
    with pytest.raises(DataError, match=rf"train\.csv: {re.escape(said)}: column 'label': empty"):
        own_data.describe(folder)


@pytest.mark.parametrize("suffix", WRITERS)
def test_wrong_rows_are_told_where_reading_breaks_behind_them(folder: Path, suffix: str) -> None:
    """They were dropped, and told one by one once the file could be read."""
    rows = [(a.encode(), b.encode()) for a, b in texts(1500)]
    rows[9] = rows[1100] = (b"goal", b"sprot")
    rows[1299] = (b"caf\xe9 goal", b"sport")
    write_bytes(folder / f"t{suffix}", rows)
    place = {".jsonl": "line 1300", ".parquet": "row 1300: column 'text'"}.get(suffix, "line 1301")
    message = rf"^t{suffix}: rows 10 and 1101: unknown label 'sprot'\..*; then t{suffix}: {place}: not UTF-8"
    with pytest.raises(DataError, match=message) as caught:
        make(f"t{suffix}").splits()
    assert "\n" not in str(caught.value)


def test_wrong_rows_are_told_before_a_split_that_is_none(folder: Path) -> None:
    rows = [(*row, "train") for row in spoilt({7: ("", "sport"), 50: ("", "sport")})]
    rows[39] = (*rows[39][:2], "trian")
    write_table(folder / "t.csv", rows, ("text", "label", "part"))
    message = r"^t\.csv: row 7: column 'text': empty; .*; then t\.csv: row 40: column 'part': 'trian' is no split"
    with pytest.raises(DataError, match=message):
        make("t.csv", split="part").splits()


def test_reading_stops_where_hardly_a_row_is_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_rows, "MOST", 10)
    write_table(folder / "t.csv", [(each, "art") for each, _ in texts(60)])
    with pytest.raises(DataError, match=r"^t\.csv: rows 1, 2, 3 and 7 more: .*; 10 mistakes, where reading stopped$"):
        make("t.csv").splits()


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


def test_a_linear_svm_is_measured_on_the_same_rows(folder: Path) -> None:
    task = make(str(write_table(folder / "t.csv", texts(300))))
    ((name, found),) = task.baselines().items()
    assert name == "TF-IDF + linear SVM"
    assert found["accuracy"] > 0.95
    assert found["bytes"] > 100
    assert found["latency_ms"] > 0
    assert len(task.rows_of("test")) == len(task.splits()["test"])


def test_a_linear_svm_sees_no_more_rows_than_the_networks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(str(write_table(folder / "t.csv", texts(300))))
    seen: dict[str, Any] = {}

    def watched(train: list[str], y: Any, test: list[str], seed: int) -> Any:
        seen.update(train=task.tokens(train)["input_ids"], y=y, test=task.tokens(test)["input_ids"])
        return tfidf_svm(train, y, test, seed)

    monkeypatch.setattr("slimline.tasks.text.tfidf_svm", watched)
    measured = task.baselines(limit=24)["TF-IDF + linear SVM"]
    splits = {name: split.head(24) for name, split in task.splits().items()}
    for part in ("train", "test"):
        np.testing.assert_array_equal(seen[part], splits[part].inputs["input_ids"])
    np.testing.assert_array_equal(seen["y"], splits["train"].targets)
    assert measured["accuracy"] * 24 == pytest.approx(round(measured["accuracy"] * 24))
