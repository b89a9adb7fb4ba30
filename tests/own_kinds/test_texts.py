"""Whatever table of texts a user has, ``slimline init`` makes a project of it that ``slimline check`` passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import DataError
from slimline.project import own_project
from slimline.project.own_project import Own
from tests.encoders import configuration, write_table, write_tokenizer
from tests.own_kinds.conftest import ROWS, WAYS, checked, laid_out

pytest.importorskip("transformers")


@pytest.mark.parametrize("recipe", ["int8", "small", "smallest"])
@pytest.mark.parametrize("way", WAYS)
def test_a_table_of_texts_makes_a_project_that_checks(encoder: Path, way: str, recipe: str) -> None:
    write_table(Path("t.csv"), [(text, WAYS[way](at, label)) for at, (text, label) in enumerate(ROWS)])
    document = laid_out(str(encoder), "t.csv", recipe)
    assert document["task"]["args"].get("answer", "one") == way
    assert len(document["budget"]["max_drop"]) == 1, "a project without a budget passes whatever comes out"
    assert document["distill"]["loss"]["name"] == "soft-targets", "a student hears its teacher, whatever the answer is"
    assert "loss" not in document["prune"]["recovery"]
    assert checked(document)[0].startswith("runs: teacher")


def test_stars_become_numbers_by_one_option(encoder: Path) -> None:
    write_table(Path("t.csv"), [(text, 1 + at % 5) for at, (text, _) in enumerate(ROWS)])
    assert laid_out(str(encoder), "t.csv")["task"]["args"]["labels"] == list("12345")
    document = laid_out(str(encoder), "t.csv", "smallest", answer="number")
    assert document["task"]["args"] | {"tolerance": 0.5, "answer": "number"} == document["task"]["args"]
    assert document["budget"]["max_drop"].keys() == {"within_tolerance"}
    assert checked(document)[0].startswith("runs: teacher")


def test_a_tokenizer_that_training_texts_use_up_is_kept(tmp_path: Path) -> None:
    """The recipe prunes the vocabulary, and none of it can go."""
    from transformers import BertModel

    BertModel(configuration(vocab_size=89)).save_pretrained("m")
    write_tokenizer(Path("m"))
    write_table(Path("t.csv"), ROWS)
    document = laid_out("m", "t.csv", "smallest")
    assert {"name": "vocabulary"} in document["prune"]["methods"]
    assert any("89 of the tokenizer's 89 pieces stay" in line for line in checked(document))


def test_check_says_when_the_tokenizer_does_not_know_the_texts(encoder: Path) -> None:
    write_table(Path("t.csv"), [(f"γκολ {text} ομάδα", label) for text, label in ROWS])
    said = [line for line in checked(laid_out(str(encoder), "t.csv")) if "unknown to the tokenizer" in line]
    assert len(said) == 1
    write_table(Path("t.csv"), ROWS)
    assert not [line for line in checked(laid_out(str(encoder), "t.csv")) if "unknown to the tokenizer" in line]


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0, 1], ["0", "1"]), ([False, True], ["False", "True"]), ([0.0, 1.0, 2.0], ["0.0", "1.0", "2.0"])],
    ids=["zero", "false", "zero as a float"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_zero_and_false_are_labels(encoder: Path, values: list[Any], labels: list[str], suffix: str) -> None:
    rows = [{"text": text, "label": values[at % len(values)]} for at, (text, _) in enumerate(ROWS)]
    document = laid_out(str(encoder), str(written(rows, Path(f"t{suffix}"))))
    assert document["task"]["args"]["labels"] == labels
    checked(document)


def written(rows: list[dict[str, Any]], data: Path) -> Path:
    """Write rows as Parquet or JSONL, by the path's suffix."""
    if data.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), data)
    else:
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return data


@pytest.mark.parametrize(
    ("wrong", "suffix", "said"),
    [
        (b"sport", ".parquet", "b'sport'"),
        ([b"sport"], ".parquet", r"\[b'sport'\]"),
        ({"name": "sport"}, ".jsonl", r"\{'name': 'sport'\}"),
        ([["sport"]], ".jsonl", r"\[\['sport'\]\]"),
    ],
    ids=["bytes", "a list of bytes", "an object", "a list in a list"],
)
def test_what_is_no_label_is_told(encoder: Path, wrong: Any, suffix: str, said: str) -> None:
    """Bytes became labels called "b'sport'"."""
    data = written([{"text": text, "label": wrong} for text, _ in ROWS], Path(f"t{suffix}"))
    with pytest.raises(DataError, match=rf"^t\{suffix}: row 1: column 'label': {said} is no label; a text, a number"):
        laid_out(str(encoder), str(data))


@pytest.mark.parametrize(
    ("said", "found"),
    [(("train", "Test"), "split"), (("train", "tset"), "split"), (("long", "short"), None)],
    ids=["parts", "a typo", "something else"],
)
def test_a_column_called_split_is_heeded(encoder: Path, said: tuple[str, str], found: str | None) -> None:
    rows = [(text, label, said[at % 5 == 0]) for at, (text, label) in enumerate(ROWS)]
    write_table(Path("t.csv"), rows, ("text", "label", "split"))
    document = laid_out(str(encoder), "t.csv")
    assert document["task"]["args"].get("split") == found
    if said[1] == "tset":
        with pytest.raises(DataError, match="row 1: column 'split': 'tset' is no split; it says train, validation,"):
            checked(document)


def test_init_says_what_it_found(encoder: Path) -> None:
    """A column taken for another shows before hours are spent."""
    rows = [(text, WAYS["many"](at, label), "train" if at % 5 else "test") for at, (text, label) in enumerate(ROWS)]
    write_table(Path("t.csv"), rows, ("review", "topic", "split"))
    own = Own(str(encoder), Path("t.csv"))
    line, head = (
        each for each in own_project.notes(own_project.params_text(own, Path(), "int8", None), own) if "found" in each
    )
    assert line == (
        "found: text; column 'review' as text; column 'topic' as label; column 'split' as split; "
        "any of 4 labels a row (late, money, science, sport)"
    )
    assert head == f"found: {encoder} has no head for these labels: it is trained first"
