from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import params
from slimline.errors import ParamsError, PluginError
from slimline.methods.structured import Structured
from slimline.params import Compression, Configured, Distill
from slimline.training.losses import SoftTargets


def put(document: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Set a dotted key in nested data."""
    *parents, leaf = key.split(".")
    at: Any = document
    for part in parents:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[int(part)]
    at[leaf] = value
    return document


def drop(document: dict[str, Any], key: str) -> dict[str, Any]:
    """Remove a dotted key from nested data."""
    *parents, leaf = key.split(".")
    at: Any = document
    for part in parents:
        at = at[part]
    del at[leaf]
    return document


def mistake(document: dict[str, Any]) -> str:
    """Return the message that a params document is refused with; it is always one line that names the file."""
    with pytest.raises(ParamsError) as caught:
        params.parse(document, Path("params.yaml"))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("params.yaml: ")
    return text.removeprefix("params.yaml: ")


def test_the_projects_own_params_are_valid(project: Path) -> None:
    settings = params.load(project / "params.yaml")
    assert list(settings.compressions) == ["distill", "prune", "quantize", "factorize"]
    assert isinstance(settings.compressions["distill"], Distill)
    assert isinstance(settings.compressions["prune"], Compression)


def test_defaults_and_file_order(document: dict[str, Any]) -> None:
    settings = params.parse(document)
    assert settings.target.batch_sizes == [1, 8, 32]
    assert settings.budget.confidence == 0.95
    assert list(settings.compressions) == ["distill", "prune", "quantize", "factorize"]
    assert settings.trusted == frozenset()


def test_sections_are_frozen(document: dict[str, Any]) -> None:
    settings = params.parse(document)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param("targt", "targt: unknown key. Did you mean 'target'?", id="top"),
        pytest.param("target.thread", "target.thread: unknown key. Did you mean 'threads'?", id="section"),
        pytest.param("teacher.traning", "teacher.traning: unknown key. Did you mean 'training'?", id="teacher"),
        pytest.param(
            "teacher.training.epoch", "teacher.training.epoch: unknown key. Did you mean 'epochs'?", id="training"
        ),
        pytest.param("distill.modl", "distill.modl: unknown key. Did you mean 'model'?", id="distill"),
        pytest.param("prune.recover", "prune.recover: unknown key. Did you mean 'recovery'?", id="stage"),
        pytest.param(
            "prune.recovery.epoch", "prune.recovery.epoch: unknown key. Did you mean 'epochs'?", id="recovery"
        ),
        pytest.param("export.format", "export.format: unknown key. Did you mean 'formats'?", id="export"),
        pytest.param("task.arg", "task.arg: unknown key. Did you mean 'args'?", id="plug-in"),
    ],
)
def test_an_unknown_key_is_named_with_a_near_miss(document: dict[str, Any], key: str, message: str) -> None:
    assert mistake(put(document, key, 1)).startswith(message)


def test_a_key_like_no_other_gets_the_list_of_known_ones(document: dict[str, Any]) -> None:
    text = mistake(put(document, "latency.zzz", 1))
    assert text == "latency.zzz: unknown key. Known: rounds, repeats"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        pytest.param("seed", -1, "seed: input should be greater than or equal to 0, found -1", id="seed"),
        pytest.param("target.threads", 0, "target.threads: input should be greater than or equal to 1", id="threads"),
        pytest.param("target.batch_sizes", [], "target.batch_sizes: list should have at least 1 item", id="no batches"),
        pytest.param("target.batch_sizes", [1, 0], "target.batch_sizes.1: input should be greater", id="batch"),
        pytest.param("budget.confidence", 1.0, "budget.confidence: input should be less than 1", id="confidence"),
        pytest.param(
            "budget.max_drop", {"accuracy": -1}, "budget.max_drop.accuracy: input should be greater", id="drop"
        ),
        pytest.param("export.min_agreement", 1.5, "export.min_agreement: input should be less than", id="agreement"),
        pytest.param("teacher.training.lr", 0, "teacher.training.lr: input should be greater than 0", id="lr"),
        pytest.param("prune.recovery.epochs", -1, "prune.recovery.epochs: input should be greater", id="recovery"),
        pytest.param("prune.methods", [], "prune.methods: list should have at least 1 item", id="no methods"),
        pytest.param("distill.training.momentum", 1, "distill.training.momentum: input should be less", id="momentum"),
    ],
)
def test_a_value_out_of_range_is_named(document: dict[str, Any], key: str, value: Any, message: str) -> None:
    assert mistake(put(document, key, value)).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        pytest.param("seed", "zero", "seed: input should be a valid integer", id="text for a number"),
        pytest.param("task", "digits", "task: input should be a valid dictionary", id="text for a section"),
        pytest.param("teacher.model", "cnn", "teacher.model: input should be a valid dictionary", id="nested"),
        pytest.param("export.stages", "teacher", "export.stages: input should be a valid list", id="text for a list"),
        pytest.param("prune.methods", [1], "prune.methods.0: input should be a valid dictionary", id="method"),
        pytest.param(
            "teacher.training.optimizer", "adam", "teacher.training.optimizer: input should be 'adamw' or", id="choice"
        ),
        pytest.param("prune.from", ["distill"], "prune.from: input should be a valid string", id="from"),
        pytest.param("budget.min_speedup", "fast", "budget.min_speedup: input should be a valid", id="union"),
        pytest.param("budget.min_speedup", {1: -2}, "budget.min_speedup", id="inside a union"),
        pytest.param(
            "monitor.latency_ms",
            {"predicts": 20},
            "monitor.latency_ms.predicts: input should be 'decode', 'queue',",
            id="part of a request",
        ),
        pytest.param(
            "monitor.undo",
            {"on": ["acuracy"]},
            "monitor.undo.on.0: input should be 'accuracy', 'agreement',",
            id="signal",
        ),
    ],
)
def test_a_value_of_a_wrong_type_is_named(document: dict[str, Any], key: str, value: Any, message: str) -> None:
    assert mistake(put(document, key, value)).startswith(message)


@pytest.mark.parametrize(
    "key",
    ["task", "task.name", "teacher", "teacher.model", "teacher.training.epochs", "export", "export.stages"],
)
def test_a_missing_key_is_named(document: dict[str, Any], key: str) -> None:
    assert mistake(drop(document, key)) == f"{key}: missing; it has no default"


@pytest.mark.parametrize("key", ["distill.training", "prune.recovery.epochs"])
def test_a_missing_key_of_a_stage_is_named(document: dict[str, Any], key: str) -> None:
    assert mistake(drop(document, key)) == f"{key}: missing; it has no default"


def test_a_stage_needs_from(document: dict[str, Any]) -> None:
    assert mistake(drop(document, "prune.from")).startswith("prune: a stage needs 'from'.")


def test_a_second_stage_may_have_any_name(document: dict[str, Any]) -> None:
    settings = params.parse({**document, "again": {**document["prune"], "from": "factorize"}})
    assert settings.compressions["again"].from_ == "factorize"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "x.yaml: not valid YAML", id="yaml"),
        pytest.param("- a\n- b\n", "x.yaml: expected keys and values, found list", id="list"),
        pytest.param("", "x.yaml: expected keys and values, found NoneType", id="empty"),
    ],
)
def test_a_file_that_holds_no_mapping_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ParamsError) as caught:
        params.load(tmp_path / "x.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml: not found; run this in the project's folder"):
        params.load(tmp_path / "params.yaml")


def test_load_reads_what_was_written(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert params.load(tmp_path / "params.yaml") == params.parse(document)


# --- a plug-in's own settings ----------------------------------------------------------------------------------------


def test_configure_builds_the_plug_in_with_its_settings() -> None:
    chosen = Configured.model_validate({"name": "structured", "ratio": 0.25, "importance": "l1"})
    assert params.configure("methods", chosen, "here") == Structured(ratio=0.25, importance="l1")
    assert params.configure("losses", Configured(name="soft-targets"), "here") == SoftTargets()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"ration": 0.3}, "here.ration: unknown key of 'structured'. Did you mean 'ratio'?", id="unknown"),
        pytest.param({"ratio": 1.5}, "here.ratio: input should be less than 1, found 1.5", id="range"),
        pytest.param({"ratio": "half"}, "here.ratio: input should be a valid number", id="type"),
        pytest.param({"importance": "l3"}, "here.importance: input should be 'l1', 'l2', 'taylor', ", id="choice"),
        pytest.param({"multiple": 0}, "here.multiple: input should be greater than or equal to 1", id="multiple"),
    ],
)
def test_a_wrong_setting_of_a_method_is_one_line_with_its_key(settings: dict[str, Any], message: str) -> None:
    chosen = Configured.model_validate({"name": "structured", **settings})
    with pytest.raises(ParamsError) as caught:
        params.configure("methods", chosen, "here")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_wrong_item_of_a_methods_list_is_named() -> None:
    chosen = Configured.model_validate({"name": "svd", "ratios": [0.5, 2]})
    with pytest.raises(ParamsError, match=r"here.ratios.1: input should be less than 1, found 2"):
        params.configure("methods", chosen, "here")


def test_an_unknown_key_deep_in_a_method_is_named_with_the_known_ones() -> None:
    chosen = Configured.model_validate({"name": "linear", "layers": {"0": {"bit": 4}}})
    with pytest.raises(ParamsError) as caught:
        params.configure("methods", chosen, "here")
    assert str(caught.value).startswith("here.layers.0.bit: unknown key. Did you mean 'bits'? Known: bits, weight_bits")


def test_a_slip_is_named_rather_than_the_key_that_it_leaves_missing(document: dict[str, Any]) -> None:
    document["distill"]["trainin"] = document["distill"].pop("training")
    assert mistake(document).startswith("distill.trainin: unknown key. Did you mean 'training'?")


def test_an_unknown_method_is_named_with_its_key() -> None:
    with pytest.raises(PluginError, match=r"here: no plug-in 'prune'"):
        params.configure("methods", Configured(name="prune"), "here")


def test_a_plug_in_that_is_no_dataclass_cannot_be_configured() -> None:
    with pytest.raises(ParamsError, match="must be a dataclass"):
        params.configure("methods", Configured(name="slimline.task:Task"), "here")


@pytest.mark.parametrize(
    ("text", "key"),
    [("seed: 1\nseed: 2\n", "seed"), ("task: {name: digits, name: wine}\n", "name")],
    ids=["top", "inner"],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=f"the key '{key}' stands there twice"):
        params.read(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ({"epochs": 1, "lr": 0.1}, "prune.before.methods: missing; it has no default"),
        ({"epochs": 0, "lr": 0.1, "methods": [{"name": "x"}]}, "prune.before.epochs: input should be greater than"),
        (
            {"epochs": 1, "lr": 0.1, "teacher": "teacher", "methods": [{"name": "x"}]},
            "prune.before.teacher: unknown key",
        ),
    ],
    ids=["methods", "epochs", "teacher"],
)
def test_a_mistake_in_before_is_named(document: dict[str, Any], before: dict[str, Any], message: str) -> None:
    document["prune"]["before"] = before
    assert mistake(document).startswith(message)
