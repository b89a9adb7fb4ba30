"""Whatever kind of data a user has, ``slimline init`` makes a project of it that ``slimline check`` passes, or says why
not: by file and row, in one line.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import check, project
from slimline.errors import DataError, ParamsError, SlimlineError
from slimline.project import Own
from tests.encoders import LABELS, configuration, texts, write_encoder, write_table, write_tokenizer
from tests.tasks.test_labelled_images import write_folders, write_zip

pytest.importorskip("transformers")
ROWS = texts(120)
WAYS: dict[str, Callable[[int, str], Any]] = {
    "one": lambda at, label: label,
    "many": lambda at, label: f"{label},late" if at % 2 else label,
    "number": lambda at, label: at / 10,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "bert")


def laid_out(model: str, data: str, recipe: str = "int8", **more: Any) -> dict[str, Any]:
    """Return params.yaml's content as init writes it."""
    document: dict[str, Any] = yaml.safe_load(project.own_params(Own(model, Path(data), **more), Path(), recipe, None))
    return document


def checked(document: dict[str, Any]) -> list[str]:
    """Return what ``slimline check`` says of it."""
    Path("params.yaml").write_text(yaml.safe_dump(document))
    shutil.copyfile(project.source() / "dvc.yaml", "dvc.yaml")
    return check.check()


def labelled_images(way: str = "one") -> list[tuple[Any, ...]]:
    """Write pictures in class folders, and return a row (path, label, split, group) for each."""
    files = sorted(path.relative_to(Path.cwd()) for path in write_folders(Path.cwd() / "p", 20).rglob("*.png"))
    parts = ("train", "train", "train", "val", "test")
    return [
        (str(path), WAYS[way](at, path.parent.name), parts[at % 5], f"{path.parent.name}{at % 10}")
        for at, path in enumerate(files)
    ]


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


@pytest.mark.parametrize("way", WAYS)
def test_a_table_of_images_makes_a_project_that_checks(way: str) -> None:
    write_table(Path("list.csv"), [row[:2] for row in labelled_images(way)], ("path", "category"))
    document = laid_out("resnet", "list.csv", "small")
    assert document["task"]["args"]["label"] == "category"
    assert document["task"]["args"].get("answer", "one") == way
    checked(document)


def test_a_table_of_images_says_split_and_group(folder: Path) -> None:
    write_table(Path("list.csv"), labelled_images(), ("path", "label", "split", "group"))
    document = laid_out("resnet", "list.csv")
    assert {name: document["task"]["args"].get(name) for name in ("split", "group")} == {
        "split": "split", "group": "group",
    }  # fmt: skip
    write_table(Path("who.csv"), labelled_images_again(folder), ("path", "label", "part", "who"))
    document = laid_out("resnet", "who.csv", split="part", group="who")
    assert any("12 validation, " in line and "12 test" in line for line in checked(document))


def labelled_images_again(folder: Path) -> list[tuple[Any, ...]]:
    """Return the rows once more, each image in a group of its own."""
    shutil.rmtree(folder / "p")
    return [(*row[:3], row[0]) for row in labelled_images()]


def test_a_table_may_list_images_in_an_archive() -> None:
    rows = labelled_images()
    write_zip(Path("p"), Path("all.zip"))
    write_table(Path("list.csv"), [(f"pictures/{row[0][2:]}", row[1]) for row in rows], ("path", "label"))
    shutil.rmtree("p")
    document = laid_out("resnet", "list.csv", archive=Path("all.zip"))
    assert document["task"]["args"]["archive"] == "all.zip"
    checked(document)


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0, 1], ["0", "1"]), ([False, True], ["False", "True"]), ([0.0, 1.0, 2.0], ["0.0", "1.0", "2.0"])],
    ids=["zero", "false", "zero as a float"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_zero_and_false_are_labels(encoder: Path, values: list[Any], labels: list[str], suffix: str) -> None:
    rows = [{"text": text, "label": values[at % len(values)]} for at, (text, _) in enumerate(ROWS)]
    data = Path(f"t{suffix}")
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), data)
    else:
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    document = laid_out(str(encoder), str(data))
    assert document["task"]["args"]["labels"] == labels
    checked(document)


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


FAMILIES = {
    "BERT": "Bert", "RoBERTa": "Roberta", "XLM-R": "XLMRoberta", "CamemBERT": "Camembert", "DistilBERT": "DistilBert",
    "ELECTRA": "Electra", "MPNet": "MPNet", "DeBERTa": "DebertaV2", "ModernBERT": "ModernBert",
    "EuroBERT": "EuroBert", "NomicBERT": "NomicBert",
}  # fmt: skip


def write_family(folder: Path, family: str, kind: str, **more: Any) -> str:
    """Save a small model of a family, with a tokenizer; ``kind`` is Model or ForSequenceClassification."""
    import transformers

    configuration = getattr(transformers, f"{family}Config")(
        vocab_size=96, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0, **more,
    )  # fmt: skip
    getattr(transformers, f"{family}{kind}")(configuration).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "recipe"), [("Model", "small"), ("ForSequenceClassification", "small"), ("Model", "smallest")]
)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_layers_of_every_family_are_found(family: str, kind: str, recipe: str) -> None:
    write_table(Path("t.csv"), ROWS)
    model = write_family(Path("m"), family, kind, id2label=dict(enumerate(LABELS)))
    document = laid_out(model, "t.csv", recipe)
    assert document["teacher"]["training"] is None or kind == "Model"
    assert list(document["distill"]["keep"].values()) == [[0, 3]]
    narrowed = {each["name"] for each in document["prune"]["methods"]} - {"vocabulary"}
    parts = {"neurons"} if family == "ModernBert" else {"heads", "neurons"}  # it makes queries, keys, values in one
    assert narrowed == (parts if recipe == "smallest" else set())
    checked(document)


def test_the_one_head_of_a_layer_stays() -> None:
    write_table(Path("t.csv"), ROWS)
    model = write_encoder(Path("m"))
    settings = json.loads((model / "config.json").read_text()) | {"num_attention_heads": 1}
    (model / "config.json").write_text(json.dumps(settings))
    document = laid_out(str(model), "t.csv", "smallest")
    assert [each["name"] for each in document["prune"]["methods"]] == ["vocabulary", "neurons"]
    checked(document)


@pytest.mark.parametrize(
    ("family", "most"), [("Bert", 66), ("DistilBert", 66), ("Roberta", 65), ("XLMRoberta", 65), ("MPNet", 64)]
)
def test_texts_longer_than_a_model_takes_are_refused(family: str, most: int) -> None:
    """RoBERTa's kin give positions out from behind that of padding."""
    write_table(Path("t.csv"), ROWS)
    model = write_family(Path("m"), family, "Model")
    message = rf"^--max-length: {most + 1}: m takes texts of at most {most} tokens \(of its 66 positions\)$"
    with pytest.raises(ParamsError, match=message):
        laid_out(model, "t.csv", max_length=most + 1)
    document = laid_out(model, "t.csv", max_length=most)
    checked(document)
    document["task"]["args"]["max_length"] = most + 1
    said = rf"takes texts of at most {most} tokens \(of its 66 positions\)$"
    with pytest.raises(ParamsError, match=rf"^params\.yaml: task\.args\.max_length: {most + 1}: m {said}") as caught:
        checked(document)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DebertaV2"])
def test_a_model_of_one_segment_takes_no_pairs_of_two(family: str) -> None:
    rows = [(text, text[::-1], label) for text, label in ROWS]
    write_table(Path("t.csv"), rows, ("first", "second", "label"))
    document = laid_out(write_family(Path("m"), family, "Model", type_vocab_size=1), "t.csv", text=("first", "second"))
    message = (
        r"^params\.yaml: task\.args\.tokenizer: it gives segment 1, and m knows none above 0 \(type_vocab_size\): take"
    )
    with pytest.raises(ParamsError, match=message):
        checked(document)
    tokenizer = json.loads(Path("m/tokenizer.json").read_text())
    for piece in tokenizer["post_processor"]["pair"]:
        next(iter(piece.values()))["type_id"] = 0  # as RoBERTa's own has it
    write_tokenizer(Path("own"))
    Path("own/tokenizer.json").write_text(json.dumps(tokenizer))
    document["task"]["args"]["tokenizer"] = "own"
    checked(document)


def test_a_model_that_knows_fewer_tokens_than_the_tokenizer_gives_is_told() -> None:
    from transformers import BertModel

    write_table(Path("t.csv"), ROWS)
    BertModel(configuration(vocab_size=8)).save_pretrained("m")
    write_tokenizer(Path("m"))
    message = r"^params\.yaml: task\.args\.tokenizer: it gives token \d+, and m knows none above 7 \(vocab_size\): take"
    with pytest.raises(ParamsError, match=message):
        checked(laid_out("m", "t.csv"))


def test_a_folder_of_checkpoints_says_which_to_take() -> None:
    """What a Trainer's output_dir is after training, unless save_model wrote into it."""
    write_table(Path("t.csv"), ROWS)
    for step in (500, 1000, 60):
        write_encoder(Path(f"runs/checkpoint-{step}"))
    Path("runs/checkpoint-2000").mkdir()
    with pytest.raises(
        DataError, match=r"^--model: runs: no config\.json in it; take runs/checkpoint-1000, the newest"
    ):
        laid_out("runs", "t.csv")


def test_a_model_that_shares_its_layers_keeps_them() -> None:
    write_table(Path("t.csv"), ROWS)
    model = write_family(Path("m"), "Albert", "Model")
    with pytest.raises(ParamsError, match="--recipe: 'small': m has no list of layers, so none of them can go; take"):
        laid_out(model, "t.csv", "small")
    document = laid_out(model, "t.csv", "int8")
    assert all(each["name"] != "neurons" for each in document["prune"]["methods"]), "called twice, so none is found"
    checked(document)


def test_a_model_that_writes_texts_is_refused() -> None:
    write_table(Path("t.csv"), ROWS)
    model = write_family(Path("m"), "Bart", "Model", d_model=32, encoder_layers=1, decoder_layers=1)
    with pytest.raises(ParamsError, match=r"--model: m: bart writes texts; an encoder \(BERT, …\) is expected"):
        laid_out(model, "t.csv")


def test_labels_that_are_numbered_get_the_names_of_the_model() -> None:
    names = ["bad", "so-so", "good"]
    model = write_family(Path("m"), "Bert", "ForSequenceClassification", id2label=dict(enumerate(names)))
    write_table(Path("t.csv"), [(text, LABELS.index(label)) for text, label in ROWS])
    document = laid_out(model, "t.csv")
    assert document["task"]["args"]["labels"] == names
    assert document["teacher"]["training"] is None
    checked(document)


def test_init_says_what_it_found(encoder: Path) -> None:
    """A column taken for another shows before hours are spent."""
    rows = [(text, WAYS["many"](at, label), "train" if at % 5 else "test") for at, (text, label) in enumerate(ROWS)]
    write_table(Path("t.csv"), rows, ("review", "topic", "split"))
    own = Own(str(encoder), Path("t.csv"))
    line, head = (
        each for each in project._notes(project.own_params(own, Path(), "int8", None), "", own) if "found" in each
    )
    assert line == (
        "found: text; column 'review' as text; column 'topic' as label; column 'split' as split; "
        "any of 4 labels a row (late, money, science, sport)"
    )
    assert head == f"found: {encoder} has no head for these labels: it is trained first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ("path",)}, "--text: images don't take it"),
        ({"max_length": 16}, "--max-length: images don't take it"),
        ({"label": "x"}, "--label: p has no columns: the folders' names say the classes"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    labelled_images()
    with pytest.raises(ParamsError, match=message):
        laid_out("resnet", "p", **options)


WRONG: dict[str, tuple[list[Any], str]] = {
    "no label": ([*ROWS[:5], ("a goal", ""), *ROWS[5:]], r"t\.csv: row 6: column 'label': empty; fill it in"),
    "one label": (
        [(text, "sport") for text, _ in ROWS],
        r"t\.csv: column 'label': no label but 'sport' in 120 rows; two",
    ),
    "no row": ([], r"t\.csv: no row in it"),
    "no text": ([*ROWS[:5], (" ", "sport"), *ROWS[5:]], r"t\.csv: row 6: column 'text': empty; fill it in"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows_are_told_by_file_and_row(encoder: Path, case: str) -> None:
    rows, message = WRONG[case]
    write_table(Path("t.csv"), rows)
    with pytest.raises(DataError, match=message) as caught:
        checked(laid_out(str(encoder), "t.csv"))
    assert "\n" not in str(caught.value)


def test_a_label_of_the_test_file_alone_is_told_by_its_row(encoder: Path) -> None:
    Path("d").mkdir()
    write_table(Path("d/train.csv"), ROWS)
    write_table(Path("d/test.csv"), [*texts(30, 1), ("a goal", "sprot")])
    message = r"d/test\.csv: row 31: column 'label': unknown label 'sprot', which no row of d/train\.csv has\. Did you"
    with pytest.raises(DataError, match=message):
        laid_out(str(encoder), "d")
    write_table(Path("d/test.csv"), [("a goal", "sprot"), *texts(30, 1), ("a goal", "sprot"), ("a goal", "art")])
    message = r"d/test\.csv: rows 1 and 32: column 'label': unknown label 'sprot' \(and 1 more likewise\), which no row"
    with pytest.raises(DataError, match=message):
        laid_out(str(encoder), "d")


HEADERS: dict[str, tuple[bytes, str]] = {
    "twice": (b"text,label,label\na,b,c\n", "line 1: column 'label' stands there twice"),
    "bars": (b"text|label\na|b\n", r"line 1: one column, 'text\|label': '\|' separates no columns in \.csv"),
    "not UTF-8": (
        "Größe,label\na,b\n".encode("latin-1"),
        r"line 1: not UTF-8 \(.*iconv -f WINDOWS-1252 -t UTF-8 t\.csv > t\.utf8",
    ),
    "none": (b'"a goal\nof the team",sport\n"a bank",money\n', "which column is the label.* a goal of the team, sport"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_wrong_header_is_told_in_one_line(encoder: Path, case: str) -> None:
    content, message = HEADERS[case]
    Path("t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        laid_out(str(encoder), "t.csv")
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_told() -> None:
    labelled_images()
    Path("p/black").mkdir()
    Path("p/.cache").mkdir()
    with pytest.raises(DataError, match="p/black: a class folder without an image in it"):
        laid_out("resnet", "p")


def test_init_says_which_files_of_class_folders_are_no_pictures() -> None:
    labelled_images()
    Path("p/red/a.heic").write_bytes(b"left out")
    document = laid_out("resnet", "p")
    lines = list(project._notes(yaml.safe_dump(document), "digits", Own("resnet", Path("p"))))
    assert "found: p: 1 file left out, such as red/a.heic: Pillow reads no .heic" in lines


def test_a_single_class_folder_is_told() -> None:
    labelled_images()
    with pytest.raises(DataError, match=r"p/red: \S+ lies in no class folder; put it into one"):
        laid_out("resnet", "p/red")
    for label in ("green", "blue"):
        shutil.rmtree(f"p/{label}")
    with pytest.raises(DataError, match="p: one class alone, 'red'"):
        laid_out("resnet", "p")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_listed_image_that_is_not_there_is_told_by_its_row(*, packed: bool) -> None:
    rows = [row[:2] for row in labelled_images()]
    write_table(Path("list.csv"), [*rows, ("p/red/none.png", "red")], ("path", "label"))
    if packed:
        write_zip(Path("p"), Path("all.zip"))
        write_table(
            Path("list.csv"), [(f"pictures/{a[2:]}", b) for a, b in [*rows, ("p/none.png", "red")]], ("path", "label")
        )
    document = laid_out("resnet", "list.csv", archive=Path("all.zip") if packed else None)
    with pytest.raises(DataError, match=r"list\.csv: row 61: '\S+none\.png': no such image in"):
        checked(document)


def test_an_image_that_is_none_is_told_without_addresses_in_memory() -> None:
    labelled_images()
    Path("p/red/003.png").write_bytes(b"no image")
    with pytest.raises(SlimlineError, match=r"p: red/003\.png: can't be decoded: cannot identify image file; replace"):
        checked(laid_out("resnet", "p"))


@pytest.mark.parametrize(
    ("model", "message"), [("resnet", "t.csv: no column 'path'"), ("none", "--model: none: no such")]
)
def test_a_model_that_does_not_fit_the_data_is_told(monkeypatch: pytest.MonkeyPatch, model: str, message: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_table(Path("t.csv"), ROWS)
    with pytest.raises(DataError, match=message):
        laid_out(model, "t.csv")
