"""The verdict: judged on the bad end of each interval."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from slimline.errors import ParamsError
from slimline.gate import Check, judge, lines, on_card, summary
from slimline.params import Budget
from slimline.promises import accepted

MEASURED: dict[str, Any] = {
    "target": {"batch_sizes": [1, 32]},
    "stages": {
        "quantize": {
            "drops": {
                "accuracy": {"drop": 0.008, "ci": [0.004, 0.012]},
                "macro_f1": {"drop": 0.009, "ci": [0.005, 0.015]},
            },
            "speedup": {"1": 16.0, "32": 25.0},
            "speedup_ci": {"1": [14.5, 17.0], "32": [24.0, 26.0]},
            "bytes": 92_000,
            "per_class": {"Shirt": {"recall": 0.7, "recall_ci": [0.67, 0.73]}},
        }
    },
}


@pytest.mark.parametrize(
    ("budget", "ok"),
    [
        ({"max_drop": {"accuracy": 0.012}}, True),
        ({"max_drop": {"accuracy": 0.011}}, False),
        ({"max_drop": {"macro_f1": 0.015}}, True),
        ({"max_drop": {"macro_f1": 0.014}}, False),
        ({"min_speedup": 14.5}, True),
        ({"min_speedup": 15}, False),
        ({"min_speedup": {32: 24}}, True),
        ({"max_bytes": 92_000}, True),
        ({"max_bytes": 91_999}, False),
        ({"min_recall": {"Shirt": 0.67}}, True),
        ({"min_recall": {"Shirt": 0.68}}, False),
    ],
    ids=str,
)
def test_a_line_passes_only_with_its_bad_end(budget: dict[str, Any], ok: bool) -> None:
    (check,) = judge(Budget(**budget), MEASURED, "quantize")
    assert check.ok is ok
    assert lines([check])[0].startswith("ok  " if ok else "FAIL")


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        ({"max_drop": {"f1": 0.1}}, "max_drop.f1"),
        ({"min_speedup": {8: 2}}, "min_speedup.8"),
        ({"min_recall": {"Hat": 0.5}}, "min_recall.Hat"),
    ],
    ids=["metric", "batch", "label"],
)
def test_what_was_not_measured_is_an_error_naming_the_key(budget: dict[str, Any], key: str) -> None:
    with pytest.raises(ParamsError, match=rf"^params\.yaml: budget\.{key}: "):
        judge(Budget(**budget), MEASURED, "quantize")


@pytest.mark.parametrize(
    ("value", "interval", "said"),
    [(0.0, [-0.08, 0.08], True), (0.02, [-0.08, 0.08], False), (0.0, [-0.01, 0.01], False)],
)
def test_a_drop_that_few_rows_leave_open_is_said_to_be(value: float, interval: list[float], said: bool) -> None:
    check = Check("drop", "drop of accuracy", 0.015, value, interval, interval[1] <= 0.015)
    (line,) = lines([check])
    assert ("more rows would tell" in line) is said
    assert line.startswith("ok  " if check.ok else "FAIL")
    assert not Check("speed-up", "speed-up at batch 1", 2.0, 1.9, [1.0, 3.0], ok=False).is_open
    (line,) = lines([Check("speed-up", "speed-up at batch 1", 2.0, 2.1, [1.0, 3.0], ok=False)])
    assert line.endswith("more latency.rounds, or a quieter machine, would tell")


def test_a_line_is_judged_by_its_kind_whatever_its_text_says() -> None:
    """A metric may be called anything."""
    assert Check("drop", "accuracy lost", 0.1, 0.05, [0.0, 0.2], ok=False).is_open
    assert not Check("recall", "drops found", 0.9, 0.95, [0.8, 1.0], ok=False).at_most
    kinds = [{"kind": "speed-up", "what": "drop of nothing", "ok": False}, {"kind": "recall", "what": "x", "ok": True}]
    assert accepted(kinds)
    assert not accepted(kinds[:1])
    assert accepted([{"what": "recall of Shirt", "ok": True}]), "as cards had it before"


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([], "is within budget"),
        ([Check("bytes", "bytes", 100, 90, None, ok=True)], "is within budget"),
        (
            [Check("drop", "drop", 0.1, 0.05, [0.0, 0.2], ok=False)],
            "keeps the budget, but its intervals are too wide to tell",
        ),
        (
            [Check("drop", "drop", 0.1, 0.05, [0.0, 0.2], ok=False), Check("bytes", "bytes", 100, 110, None, ok=False)],
            "is over budget",
        ),
    ],
    ids=["no budget", "kept", "open", "over"],
)
def test_the_verdict_in_words_and_the_same_from_a_card(checks: list[Check], said: str) -> None:
    assert summary(checks) == said
    older = [{key: value for key, value in asdict(check).items() if key != "kind"} for check in checks]
    for lines_on_card in ([asdict(check) for check in checks], older):
        assert on_card({"verdict": {"checks": lines_on_card}}) == checks


def test_a_gain_is_named_beside_its_negative_drop() -> None:
    (line,) = lines([Check("drop", "drop of accuracy", 0.015, -0.083, [-0.19, 0.01], ok=True)])
    assert line == "ok   drop of accuracy: -0.083 (a gain) [-0.19, 0.01], budget ≤ 0.015"


AT_CHANCE = {"what": "no better than guessing", "fact": "40.0% of 50 test answers are right", "margin": -0.02}


@pytest.mark.parametrize("budget", [{}, {"max_drop": {"accuracy": 0.5}}], ids=["no budget", "a budget that is kept"])
def test_a_teacher_that_guesses_fails_whatever_is_kept_against_it(budget: dict[str, Any]) -> None:
    found = judge(Budget(**budget), MEASURED | {"teacher_at_chance": AT_CHANCE}, "quantize")
    assert [check.ok for check in found] == [False, *([True] * len(budget))]
    assert lines(found)[0] == (
        "FAIL the teacher is no better than guessing: 40.0% of 50 test answers are right; "
        "a budget against it says nothing"
    )
    assert not found[0].is_open
    assert not accepted([asdict(check) for check in found])


def test_a_teacher_that_few_rows_leave_open_fails_and_more_would_tell() -> None:
    unsure = AT_CHANCE | {"what": "not surely better than guessing", "margin": 0.02}
    (check,) = judge(Budget(), MEASURED | {"teacher_at_chance": unsure}, "quantize")
    assert not check.ok
    assert check.is_open
    assert lines([check])[0].endswith("test answers are right; more rows would tell")


def test_an_empty_budget_asks_for_nothing() -> None:
    assert judge(Budget(), MEASURED, "quantize") == []


def test_a_stage_that_was_not_measured_is_named() -> None:
    measured = {"stages": {"teacher": {}, "quantize": {}}}
    with pytest.raises(ParamsError, match=r"factorize, the last stage, is not in it"):
        judge(Budget(), measured, "factorize")


def test_a_floor_of_a_label_is_told_off_where_there_are_none() -> None:
    row = {key: value for key, value in MEASURED["stages"]["quantize"].items() if key != "per_class"}
    measured = MEASURED | {"stages": {"quantize": row}}
    with pytest.raises(
        ParamsError, match=r"^params\.yaml: budget\.min_recall\.Hat: .* has none: bound max_drop instead$"
    ):
        judge(Budget.model_validate({"min_recall": {"Hat": 0.5}}), measured, "quantize")


def test_macro_f1_may_hold_where_the_floor_of_a_label_does_not() -> None:
    budget = Budget.model_validate({"max_drop": {"macro_f1": 0.015}, "min_recall": {"Shirt": 0.68}})
    found = {check.what: check.ok for check in judge(budget, MEASURED, "quantize")}
    assert found == {"drop of macro_f1": True, "recall of Shirt": False}
