"""Encoders of every family: their layers, heads, positions and labels are found, or it is said why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimline.errors import DataError, ParamsError
from tests.encoders import LABELS, configuration, write_encoder, write_family, write_table, write_tokenizer
from tests.own_kinds.conftest import ROWS, checked, laid_out

pytest.importorskip("transformers")
FAMILIES = {
    "BERT": "Bert", "RoBERTa": "Roberta", "XLM-R": "XLMRoberta", "CamemBERT": "Camembert", "DistilBERT": "DistilBert",
    "ELECTRA": "Electra", "MPNet": "MPNet", "DeBERTa": "DebertaV2", "ModernBERT": "ModernBert",
    "EuroBERT": "EuroBert", "NomicBERT": "NomicBert",
}  # fmt: skip


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
