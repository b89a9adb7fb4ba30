from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimline import pipeline
from slimline.errors import ParamsError

CHAIN = ["teacher", "distill", "prune", "quantize", "factorize"]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        pytest.param("teacher", [], id="teacher"),
        pytest.param("distill", ["teacher"], id="its teacher once"),
        pytest.param("prune", ["distill", "teacher"], id="recovery's teacher"),
    ],
)
def test_inputs(document: dict[str, Any], stage: str, expected: list[str]) -> None:
    assert pipeline.inputs(document, stage) == expected


@pytest.mark.parametrize("recovery", [None, {"epochs": 1, "lr": 0.1}, {"teacher": None}], ids=["none", "plain", "null"])
def test_a_stage_without_a_recovery_teacher_reads_its_from_alone(document: dict[str, Any], recovery: Any) -> None:
    document["prune"]["recovery"] = recovery
    assert pipeline.inputs(document, "prune") == ["distill"]


def test_further_teachers_are_read_too(document: dict[str, Any]) -> None:
    document["distill"]["teachers"] = ["big", "teacher"]
    document["prune"]["recovery"] = {"teacher": "teacher", "teachers": ["distill", "big"], "epochs": 1, "lr": 0.1}
    document["big"] = {"from": "teacher", "training": {"epochs": 1, "lr": 0.1}}
    assert pipeline.inputs(document, "distill") == ["teacher", "big"]
    assert pipeline.inputs(document, "prune") == ["distill", "teacher", "big"]
    assert pipeline.ancestors(document, "prune") == ["teacher", "big", "distill", "prune"]


def test_stages_stand_in_file_order(document: dict[str, Any]) -> None:
    assert pipeline.stages(document) == CHAIN


def test_ancestors_come_in_an_order_that_can_run(document: dict[str, Any]) -> None:
    assert pipeline.ancestors(document, "factorize") == CHAIN
    assert pipeline.ancestors(document, "prune") == CHAIN[:3]


def test_only_what_is_needed_is_an_ancestor(document: dict[str, Any]) -> None:
    document["quantize"]["from"] = "distill"
    assert pipeline.ancestors(document, "quantize") == ["teacher", "distill", "quantize"]


def test_the_other_order_needs_no_other_edit(document: dict[str, Any]) -> None:
    document["factorize"]["from"], document["quantize"]["from"] = "prune", "factorize"
    assert pipeline.chain(document, "quantize") == ["teacher", "distill", "prune", "factorize", "quantize"]
    assert pipeline.last(document) == "quantize"


def test_a_chain_follows_the_model_not_its_teachers(document: dict[str, Any]) -> None:
    document["big"] = {"from": "teacher", "training": {"epochs": 1, "lr": 0.1}}
    document["prune"]["recovery"] = {"teacher": "big", "epochs": 1, "lr": 0.1}
    assert pipeline.chain(document, "prune") == ["teacher", "distill", "prune"]
    assert pipeline.ancestors(document, "prune") == ["teacher", "distill", "big", "prune"]


def refuse(document: dict[str, Any]) -> str:
    with pytest.raises(ParamsError) as caught:
        pipeline.check_order(document)
    text = str(caught.value)
    assert text.startswith("params.yaml: ")
    assert "\n" not in text
    return text.removeprefix("params.yaml: ")


def test_check_order_returns_what_a_run_needs(document: dict[str, Any]) -> None:
    assert pipeline.check_order(document) == CHAIN
    document["export"]["stages"] = ["teacher", "prune"]
    assert pipeline.check_order(document) == CHAIN[:3]


def test_an_unknown_from_is_named_with_a_near_miss(document: dict[str, Any]) -> None:
    document["prune"]["from"] = "distil"
    assert refuse(document).startswith("prune.from: no stage 'distil'. Did you mean 'distill'?")


def test_an_unknown_teacher_is_named(document: dict[str, Any]) -> None:
    document["distill"]["teacher"] = "master"
    assert refuse(document).startswith("distill: teacher: no stage 'master'.")


def test_an_unknown_export_is_named(document: dict[str, Any]) -> None:
    document["export"]["stages"].append("quantise")
    assert refuse(document).startswith("export.stages: no stage 'quantise'. Did you mean 'quantize'?")


@pytest.mark.parametrize(
    ("key", "parent", "circle"),
    [
        pytest.param("prune", "factorize", "prune -> factorize -> quantize -> prune", id="three"),
        pytest.param("prune", "prune", "prune -> prune", id="itself"),
    ],
)
def test_a_circle_is_shown(document: dict[str, Any], key: str, parent: str, circle: str) -> None:
    document[key]["from"] = parent
    text = refuse(document)
    assert "the stages make a circle" in text
    members = text.partition("circle: ")[2].partition(";")[0].split(" -> ")
    assert sorted(members[:-1]) == sorted(circle.split(" -> ")[:-1])
    assert members[0] == members[-1]


def test_a_circle_outside_what_is_exported_is_found_too(document: dict[str, Any]) -> None:
    document["export"]["stages"] = ["teacher", "distill"]
    document["quantize"]["from"] = "factorize"
    assert "circle" in refuse(document)


def test_two_ends_are_named(document: dict[str, Any]) -> None:
    document["factorize"]["from"] = "prune"
    assert refuse(document).startswith("export.stages: quantize and factorize are both last")


def test_an_export_listed_twice_is_named(document: dict[str, Any]) -> None:
    document["export"]["stages"].append("prune")
    assert refuse(document) == "export.stages: 'prune' stands there twice"


def test_the_teacher_must_be_exported(document: dict[str, Any]) -> None:
    document["export"]["stages"] = ["prune"]
    assert refuse(document).startswith("export.stages: add 'teacher'")


def test_the_teacher_alone_is_its_own_end(document: dict[str, Any]) -> None:
    document["export"]["stages"] = ["teacher"]
    assert pipeline.check_order(document) == ["teacher"]
    assert pipeline.last(document) == "teacher"


@given(st.permutations(["distill", "prune", "quantize", "factorize"]))
def test_any_order_of_stages_gives_that_chain(order: list[str]) -> None:
    document: dict[str, Any] = {"teacher": {}, "export": {"stages": ["teacher", *sorted(order)]}}
    for before, stage in zip(["teacher", *order], order, strict=False):
        document[stage] = {"from": before}
    assert pipeline.last(document) == order[-1]
    assert pipeline.ancestors(document, order[-1]) == pipeline.chain(document, order[-1]) == ["teacher", *order]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        pytest.param("factorize", "the stages make a circle", id="circle"),
        pytest.param("destill", "no stage 'destill'. Did you mean 'distill'?", id="unknown"),
    ],
)
def test_a_chain_that_leads_nowhere_is_an_error_not_a_loop(document: dict[str, Any], before: str, message: str) -> None:
    document["prune"]["from"] = before
    with pytest.raises(ParamsError, match=re.escape(message)):
        pipeline.last(document)
