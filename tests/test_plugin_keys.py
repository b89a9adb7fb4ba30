"""What ``slimline plugins GROUP NAME`` says of a plug-in's keys is what params.yaml may hold."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import pytest

from slimline import params, plugin_keys, plugins
from slimline.cli import main
from slimline.errors import ParamsError
from slimline.params import Configured, Weighted
from slimline.plugin_keys import Key

if TYPE_CHECKING:
    from decimal import Decimal

OFFERS = [pytest.param(each, id=f"{each.kind}-{each.name}") for each in plugins.offers()]


def keys(kind: str, name: str) -> dict[str, Key]:
    return {key.name: key for key in plugin_keys.keys(kind, plugins.find(kind, name))}


def test_a_plugin_is_a_line_and_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["slimline", "plugins", "methods", "structured"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.splitlines() == [
        "structured: Prune ratio of the model's channels, MACs, bytes or time; no group loses over max_ratio.",
        "key           type                                                     default",
        "importance    l1 | l2 | taylor | fisher | hessian | bn-scale | random  taylor",
        "ratio         number > 0, < 1                                          0.4",
        "of            channels | macs | bytes | latency                        channels",
        "multiple      integer ≥ 1                                              8",
        "max_ratio     number > 0, < 1                                          0.75",
        "scope         global | layer | sensitivity                             global",
        "kernels       as-is | int8                                             as-is",
        "float_layers  list of text                                             []",
    ]


@pytest.mark.parametrize("offer", OFFERS)
def test_every_plugin_says_in_a_line_what_it_is(offer: plugins.Offer) -> None:
    first = plugin_keys.described(offer.kind, offer.name)[0]
    assert first.startswith(f"{offer.name}: ")
    assert first.endswith(".")
    assert "ts keys are" not in first


@pytest.mark.parametrize("offer", OFFERS)
def test_the_keys_shown_are_those_that_are_taken(offer: plugins.Offer) -> None:
    factory = plugins.find(offer.kind, offer.name)
    if not is_dataclass(factory):
        return
    shown = keys(offer.kind, offer.name)
    own = {name: key for name, key in shown.items() if "." not in name}
    assert own.keys() == {field.name for field in fields(factory)} | ({"weight"} if offer.kind == "losses" else set())
    for field in fields(factory):
        required = field.default is MISSING and field.default_factory is MISSING
        assert (shown[field.name].default == "required") == required
    chosen = (Weighted if offer.kind == "losses" else Configured).model_validate({"name": offer.name, "zzz": 1})
    with pytest.raises(ParamsError) as caught:
        params.configure(offer.kind, chosen, "here")
    known = str(caught.value).partition(" Known: ")[2]
    assert set(known.split(", ")) - {""} == own.keys()


def test_records_follow_with_dots() -> None:
    svd, linear = keys("methods", "svd"), keys("methods", "linear")
    assert svd["rank"][1:3] == ("auto | record", "auto")
    assert svd["rank.ratio"][1:3] == ("number > 0, < 1", "required")
    assert "rank.energy" in svd
    assert linear["budget"][1:3] == ("record | null", "null")
    assert linear["budget.bytes"][1:3] == ("integer ≥ 1 | null", "null")
    assert linear["layers"][1:3] == ("map to record", "{}")
    assert linear["layers.*.rounding"][1:3] == ("nearest | adaround | null", "null")
    assert linear["calibrator"][1:3] == ("minmax | moving-average | percentile | entropy | mse", "minmax")
    assert linear["choices"][1:3] == ("list of (integer ≥ 2, ≤ 16 | 32)", "[4, 8]")


def test_tasks_and_models_have_args() -> None:
    assert keys("models", "resnet")["args.depth"][1:3] == ("integer", "18")
    encoder = keys("models", "hf-encoder")
    assert encoder["args.pooling"][1:3] == ("mean | cls | head", "mean")
    assert "args.assets" not in encoder, "the artifact gives them"
    text = keys("tasks", "text")
    assert text["args.answer"].default == "one"
    assert text["args.data"] == ("args.data", "text | map to text", "required", "")
    assert text["args.labels"].of == "of OneLabelText, ManyLabelsText"
    assert text["args.test"].of == "", "all kinds of answers take it"


@pytest.mark.parametrize(
    ("kind", "name"), [("metrics", "accuracy"), ("exporters", "onnx"), ("runtimes", "onnxruntime")]
)
def test_what_is_named_alone_has_no_keys(kind: str, name: str) -> None:
    assert plugin_keys.described(kind, name)[1:] == ["It has no keys."]


@dataclass
class Odd:
    """Annotated by what no schema knows."""

    layer: type[Any] | object
    odd: Decimal = 1  # type: ignore[assignment]


def test_an_annotation_that_says_nothing_is_no_hindrance() -> None:
    assert [key.name for key in plugin_keys.keys("methods", Odd)] == ["layer", "odd"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("methods", "strctured"), "no plug-in 'strctured' among slimline.methods; there are: bfloat16, "),
        (("methods", "strctured"), " Did you mean 'structured'? 'slimline plugins' lists them all"),
        (("methds", "structured"), "'methds' is no kind of plug-in. Did you mean 'methods'? Kinds: tasks, "),
    ],
)
def test_unknown_names_are_one_line_with_near_misses(
    arguments: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["slimline", "plugins", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("family", "own"),
    [("timm:", ["args.classes", "args.channels"]), ("torchvision:", ["args.classes"])],
    ids=["timm", "torchvision"],
)
def test_a_family_shows_the_keys_of_its_members(family: str, own: list[str]) -> None:
    assert list(keys("models", family)) == own
