"""``slimline init --model --data``: what it finds out by itself, and what it asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import pipeline
from slimline.errors import DataError
from slimline.project import own_data, own_project, text_params
from slimline.project.own_project import Own
from tests.encoders import LABELS, texts, write_table
from tests.own_projects import laid_out, model, trained
from tests.pictures import write_folders

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("recipe", "order", "kept"),
    [
        ("int8", ["teacher", "quantize"], None),
        ("small", ["teacher", "distill", "prune", "quantize"], [0, 2, 5]),
        ("smallest", ["teacher", "distill", "prune", "quantize"], [0, 5]),
    ],
)
def test_recipes_run_what_they_say(tmp_path: Path, recipe: str, order: list[str], kept: list[int] | None) -> None:
    table = write_table(tmp_path / "t.csv", texts(60))
    document = laid_out(tmp_path, model(tmp_path / "m"), table, recipe)
    assert pipeline.check_order(document) == order
    assert document["limit"] == 500
    assert document["task"]["args"] == {
        "data": "t.csv", "tokenizer": "m", "text": "text", "label": "label", "labels": list(LABELS),
        "max_length": document["task"]["args"]["max_length"],
    } | ({} if recipe == "int8" else {"vocabulary": "train"})  # fmt: skip
    assert document["task"]["args"]["max_length"] in {16, 32}
    if kept is not None:
        assert document["distill"]["keep"] == {"body.encoder.layer": kept}
    if recipe == "int8":
        assert document["quantize"]["recovery"]["epochs"] == 0


def test_a_model_with_a_head_is_not_trained_and_keeps_its_order(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", texts(60))
    names = ["sport", "money", "science"]
    document = laid_out(tmp_path, trained(tmp_path / "m", names), table)
    assert document["task"]["args"]["labels"] == names
    assert document["teacher"]["training"] is None
    assert document["teacher"]["model"]["args"] == {"source": "m", "pooling": "head", "classes": 3}


def said(model: str, data: Path, root: Path) -> str:
    """Return what init says of a model's head."""
    asked = Own(model, data)
    lines = own_project.notes(own_project.params_text(asked, root, "int8", None), asked)
    (line,) = (line for line in lines if line.startswith(f"found: {model} "))
    return line.removeprefix(f"found: {model} ")


def two(path: Path, names: tuple[str, str]) -> Path:
    """Write a table of texts that have one of two labels."""
    return write_table(path, [(text, names[at % 2]) for at, (text, _) in enumerate(texts(60))])


@pytest.mark.parametrize("labels", [("neg", "pos"), ("0", "1")])
def test_a_head_whose_names_transformers_left_out_is_taken_as_it_is(tmp_path: Path, labels: tuple[str, str]) -> None:
    table, given = two(tmp_path / "t.csv", labels), trained(tmp_path / "m")
    assert "id2label" not in (tmp_path / "m" / "config.json").read_text()
    document = laid_out(tmp_path, given, table)
    assert (document["teacher"]["training"], document["task"]["args"]["labels"]) == (None, list(labels))
    assert not own_project._trains_in_bf16(document), "nothing is trained"
    assert said(given, table, tmp_path) == (
        f"has a head for them: as it is; its outputs have no names, so they are taken for {', '.join(labels)} in this "
        "order"
    )


def test_names_in_capitals_are_the_same_names(tmp_path: Path) -> None:
    table = two(tmp_path / "t.csv", ("neg", "pos"))
    document = laid_out(tmp_path, trained(tmp_path / "m", ["POS", "NEG"]), table)
    assert document["teacher"]["training"] is None
    assert document["task"]["args"]["labels"] == ["pos", "neg"], "as the data spell them, in the model's order"


@pytest.mark.parametrize(
    ("names", "labels", "why"),
    [
        (["a", "b", "c"], ("x", "b"), "a head for a, b, c, without x, and no row has a, c: it is"),
        (["negative", "neutral", "positive"], ("Negative", "Positive"), "positive, and no row has neutral: it is"),
        (["us", "US"], ("us", "Us"), "a head for us, US, and some differ in upper and lower case alone: it is"),
        (
            ["LABEL_0", "LABEL_1", "LABEL_2"],
            ("0", "1"),
            "a head for LABEL_0, LABEL_1, LABEL_2, and no row has LABEL_2: it is",
        ),
    ],
)
def test_a_head_for_other_labels_is_trained_anew_and_init_says_why(
    tmp_path: Path, names: list[str], labels: tuple[str, str], why: str
) -> None:
    table, given = two(tmp_path / "t.csv", labels), trained(tmp_path / "m", names)
    document = laid_out(tmp_path, given, table)
    assert document["teacher"]["training"]["epochs"] > 0
    assert document["teacher"]["model"]["args"]["pooling"] == "mean"
    assert why in said(given, table, tmp_path)


def test_positions_written_as_fractions_are_positions(tmp_path: Path) -> None:
    """As pandas writes whole numbers where a cell of the column was empty."""
    table, given = two(tmp_path / "t.csv", ("0.0", "1.0")), trained(tmp_path / "m", ["neg", "pos"])
    document = laid_out(tmp_path, given, table)
    assert (document["teacher"]["training"], document["task"]["args"]["labels"]) == (None, ["neg", "pos"])


def test_outputs_without_names_take_the_sorted_order(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [(a, LABELS.index(b)) for a, b in texts(60)])
    document = laid_out(tmp_path, trained(tmp_path / "m", count=3), table)
    assert document["task"]["args"]["labels"] == ["0", "1", "2"]
    assert document["teacher"]["training"] is None


@pytest.mark.parametrize("names", [["0", "1"], ["label_0", "label_1"], ["Class 0", "Class 1"]])
def test_numbers_are_no_names_of_outputs(tmp_path: Path, names: list[str]) -> None:
    table, given = two(tmp_path / "t.csv", ("neg", "pos")), trained(tmp_path / "m", names)
    document = laid_out(tmp_path, given, table)
    assert (document["teacher"]["training"], document["task"]["args"]["labels"]) == (None, ["neg", "pos"])
    assert "its outputs have no names, so they are taken for neg, pos in this order" in said(given, table, tmp_path)


def test_two_tables_in_a_folder_are_train_and_test(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_table(tmp_path / "d" / "train.tsv", texts(60))
    write_table(tmp_path / "d" / "test.tsv", texts(30, 1))
    document = laid_out(tmp_path, model(tmp_path / "m"), tmp_path / "d")
    assert document["task"]["args"]["data"] == {"train": "d/train.tsv", "test": "d/test.tsv"}


def test_tables_in_a_folder_may_have_other_usual_names(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for seed, name in enumerate(("Training.csv", "dev.jsonl", "holdout.tsv", "more.csv")):
        path, rows = tmp_path / "d" / name, texts(60, seed)
        if path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(dict(zip(('text', 'label'), row, strict=True)))}\n" for row in rows))
        else:
            write_table(path, rows)
    given = model(tmp_path / "m")
    document = laid_out(tmp_path, given, tmp_path / "d")
    assert document["task"]["args"]["data"] == {
        "train": "d/Training.csv", "validation": "d/dev.jsonl", "test": "d/holdout.tsv",
    }  # fmt: skip
    asked = Own(given, tmp_path / "d")
    notes = list(own_project.notes(yaml.safe_dump(document), asked))
    left = f"found: {tmp_path / 'd' / 'more.csv'}: left out, since a table in a folder is called train, training, valid"
    assert any(note.startswith(left) for note in notes)


def test_two_tables_for_one_part_are_told(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.csv", "valid.csv"):
        write_table(tmp_path / name, texts(60))
    with pytest.raises(DataError, match=r"two tables for validation: dev\.csv, valid\.csv; take one out"):
        own_data.find(tmp_path)


@pytest.mark.parametrize(
    ("names", "columns", "text", "label"),
    [
        (("review", "sentiment"), {}, "review", "sentiment"),
        (("Body", "Category"), {}, "Body", "Category"),
        (("words", "label"), {}, "words", "label"),
        (("first", "second"), {"text": ("first",), "label": "second"}, "first", "second"),
    ],
)
def test_columns_are_found_or_named(
    tmp_path: Path, names: tuple[str, str], columns: dict[str, Any], text: str, label: str
) -> None:
    found = own_data.describe(write_table(tmp_path / "t.csv", texts(60), names), own_data.Columns(**columns))
    assert (found.text, found.label) == ([text], label)


def test_pairs_are_found(tmp_path: Path) -> None:
    rows = [(a, b, label) for (a, label), (b, _) in zip(texts(60), texts(60, 1), strict=True)]
    found = own_data.describe(write_table(tmp_path / "t.csv", rows, ("premise", "hypothesis", "label")))
    assert found.text == ["premise", "hypothesis"]


@pytest.mark.parametrize(("mark", "written"), [(";", ";"), (",", None)])
def test_the_separator_is_written_where_it_is_not_a_comma(tmp_path: Path, mark: str, written: str | None) -> None:
    labels = [f"a{mark}b", "a", f"b{mark}c", "c"]
    table = write_table(tmp_path / "t.csv", [(text, labels[at % 4]) for at, (text, _) in enumerate(texts(60))])
    args = laid_out(tmp_path, model(tmp_path / "m"), table)["task"]["args"]
    assert (args["answer"], args.get("separator")) == ("many", written)


@pytest.mark.parametrize("fast", [False, True], ids=["no-bf16", "bf16"])
@pytest.mark.parametrize(
    ("given", "gains"), [("efficientnet-lite", False), ("resnet", True), ("cnn", True), ("bert", True)]
)
def test_training_is_in_bf16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, gains: bool, fast: bool
) -> None:
    """On CPUs that compute it, all but convolutions in groups are."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": fast, "amx_bf16": False})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if given == "bert":
        document = laid_out(tmp_path, model(tmp_path / "m"), write_table(tmp_path / "t.csv", texts(60)), "smallest")
    else:
        document = laid_out(tmp_path, given, write_folders(tmp_path / "pictures", 2), "smallest")
    trainings = [document["teacher"]["training"], document["distill"]["training"], document["prune"]["recovery"]]
    assert {each.get("precision") for each in trainings} == {"bf16" if fast and gains else None}
    assert "precision" not in document["quantize"]["recovery"], "fake-quantizers train in float32"


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (("a", "b"), texts(5), r"which column is the label\? Name it with --label: a, b"),
        (("a", "b", "label"), [("x", "y", "z")] * 5, r"which column is the text\? Name it with --text: a, b, label"),
        (("text", "label"), [(a, a) for a, _ in texts(40)], "40 distinct values in 40 rows are no labels"),
        (
            ("text", "label"),
            [*texts(9), ("a", "")],
            r"t\.csv: row 10: column 'label': empty; fill it in",
        ),
    ],
)
def test_what_cannot_be_found_is_asked_for(
    tmp_path: Path, names: tuple[str, ...], rows: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        own_data.describe(write_table(tmp_path / "t.csv", rows, names))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json in it"):
        text_params.configuration(str(tmp_path))


@pytest.mark.parametrize(("layers", "kept", "expected"), [(6, 3, [0, 2, 5]), (12, 4, [0, 4, 7, 11]), (6, 1, [0])])
def test_layers_are_spread(layers: int, kept: int, expected: list[int]) -> None:
    assert text_params.spread(layers, kept) == expected
