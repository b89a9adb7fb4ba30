from __future__ import annotations

import numpy as np
import pytest

from slimline import runtime_choice
from slimline.latency import Samples


def samples(ms: float) -> Samples:
    return Samples(np.full((3, 2), ms / 1e3))


def test_auto_measures_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_choice.candidates("onnxruntime", 2) == ["onnxruntime"]
    monkeypatch.setattr(runtime_choice, "find_spec", lambda package: package == "onnxruntime")
    assert runtime_choice.candidates("auto", 1) == ["onnxruntime"]
    assert runtime_choice.candidates("auto", 2) == ["onnxruntime", "onnxruntime-rows"]
    monkeypatch.setattr(runtime_choice, "find_spec", lambda package: True)
    assert runtime_choice.candidates("auto", 1) == ["onnxruntime", "openvino", "openvino-bf16"]


def test_only_runtimes_that_are_known_to_take_several_callers_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1, 2})
    assert [runtime_choice.callers(each) for each in ("onnxruntime", "openvino-bf16")] == [3, 3]
    assert [runtime_choice.callers(each) for each in ("tensorrt", "triton", "somebody's")] == [1, 1, 1]


@pytest.mark.parametrize(("bf16", "count"), [("bf16", 4), ("f32", 3)])
def test_a_runtime_that_computes_as_another_does_is_not_timed_again(bf16: str, count: int) -> None:
    every = ["onnxruntime", "onnxruntime-rows", "openvino", "openvino-bf16"]
    computed = {
        "onnxruntime": {},
        "onnxruntime-rows": {},
        "openvino": {"precision": "f32"},
        "openvino-bf16": {"precision": bf16},
    }
    assert runtime_choice.distinct(every, computed) == every[:count]
    assert runtime_choice.distinct(["openvino-bf16"], computed) == ["openvino-bf16"]


@pytest.mark.parametrize(
    ("times", "allowed", "chosen"),
    [
        pytest.param({"a": (1, 4), "b": (0.5, 3)}, {"a": True, "b": True}, "b", id="the fastest"),
        pytest.param({"a": (1, 4), "b": (0.5, 3)}, {"a": True, "b": False}, "a", id="not at any price"),
        pytest.param({"a": (1, 4), "b": (0.99, 4)}, {"a": True, "b": True}, "a", id="in doubt the default"),
        pytest.param({"a": (1, 4), "b": (0.5, 9)}, {"a": True, "b": True}, "a", id="over all batch sizes"),
    ],
)
def test_the_fastest_within_the_budget(
    times: dict[str, tuple[float, float]], allowed: dict[str, bool], chosen: str
) -> None:
    measured = {name: {1: samples(one), 8: samples(eight)} for name, (one, eight) in times.items()}
    assert runtime_choice.fastest(measured, allowed) == chosen


def test_the_budget_holds_for_another_runtime_unless_the_default_breaks_it_too() -> None:
    limits = {"accuracy": 0.01}
    assert runtime_choice.fits({"accuracy": 0.009}, {"accuracy": 0.0}, limits)
    assert not runtime_choice.fits({"accuracy": 0.012}, {"accuracy": 0.0}, limits)
    assert runtime_choice.fits({"accuracy": 0.012}, {"accuracy": 0.013}, limits)


def test_a_release_says_what_it_was_measured_with() -> None:
    card = {"benchmark": {"stages": {"old": {}, "new": {"runtime": "openvino"}}}}
    assert runtime_choice.measured_with(card, "new") == "openvino"
    assert runtime_choice.measured_with(card, "old") == "onnxruntime"
