"""What ``make bench`` aims at: which peers count, what is missed and by how much, and how the page says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BASE, OURS = "fp32 in ONNX Runtime", "Slimline: quantize"
PLACES = ("b1/t1", "b8/t1")


def row(tool: str, right: float, latency: float, size: int = 1000) -> dict[str, Any]:
    """A variant that gets a share of the rows right, each share known to 0.5 points, its drop from 0.97 to 1."""
    drop = 0.97 - right
    drops = {name: {"drop": drop, "ci": [drop - 0.01, drop + 0.01]} for name in ("accuracy", "macro_f1")}
    return {
        "tool": tool, "accuracy": right, "accuracy_ci": [right - 0.005, right + 0.005], "accuracy_drop": drop,
        "macro_f1": right, "agreement": 1.0, "drops": drops, "bytes": size,
        "latency_ms": dict.fromkeys(PLACES, latency), "speedup": dict.fromkeys(PLACES, 16.0 / latency),
    }  # fmt: skip


def ahead(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, tuple[float, list[float]]]]:
    own = rows[OURS]["latency_ms"]
    return {
        variant: {place: (each["latency_ms"][place] / own[place], [0.1, 99.0]) for place in PLACES}
        for variant, each in rows.items()
    }


def judged(rows: dict[str, dict[str, Any]], name: str = "topics") -> dict[str, dict[str, Any]]:
    import peer_goals

    found = [each.as_json() for each in peer_goals.goals(name, rows, BASE, OURS, ahead(rows), "accuracy")]
    return {each["aim"].split(" ")[0] + f" {each['bound']:g}": each for each in found}


@pytest.fixture
def rows() -> dict[str, dict[str, Any]]:
    return {
        BASE: row("onnxruntime", 0.97, 16.0),
        "fast but wrong": row("nncf", 0.90, 0.5),
        "of two tools": row("distillation + onnxruntime", 0.968, 3.0),
        "alone": row("nncf", 0.969, 5.0),
        "ours, earlier": row("slimline", 0.966, 1.0),
        OURS: row("slimline", 0.966, 2.0, 90),
    }


def test_a_peer_counts_where_its_interval_overlaps(rows: dict[str, Any]) -> None:
    found = judged(rows)["no 1"]["places"]["b1/t1"]
    assert (found["over"], found["value"], found["met"]) == ("of two tools", 1.5, True)
    rows["fast but wrong"] = row("nncf", 0.957, 0.5)
    found = judged(rows)["no 1"]["places"]["b1/t1"]
    assert (found["over"], found["met"], found["missed_by"]) == ("fast but wrong", False, 0.75)


def test_the_best_single_tool_is_the_fastest_within_a_point(rows: dict[str, Any]) -> None:
    found = judged(rows)["≥ 2"]["places"]["b1/t1"]
    assert (found["over"], found["value"], found["met"]) == ("alone", 2.5, True)
    rows["alone"] = row("nncf", 0.969, 3.8)
    goal = judged(rows)["≥ 2"]
    assert goal["places"]["b8/t1"]["missed_by"] == pytest.approx(0.1)
    assert goal["met"] is False


def test_a_workload_has_its_own_speed_and_size(rows: dict[str, Any]) -> None:
    topics, garments, other = (judged(rows, name) for name in ("topics", "garments", "other"))
    assert topics["≥ 8"]["places"]["b1/t1"]["value"] == 8.0
    assert topics["≥ 8"]["met"] is True
    assert topics["≥ 10"]["places"][""]["value"] == pytest.approx(1000 / 90)
    assert garments["≥ 6"]["met"] is True
    assert garments["≥ 8"]["places"][""]["over"] == BASE
    assert [name for name in other if name[0] == "≥"] == ["≥ 2"]


def test_the_upper_bound_of_a_drop_is_judged_in_points(rows: dict[str, Any]) -> None:
    rows[OURS]["drops"]["macro_f1"] = {"drop": 0.01, "ci": [-0.001, 0.019]}
    found = judged(rows)["upper 1.5"]["places"][""]
    assert found["value"] == pytest.approx(1.0)
    assert found["missed_by"] == pytest.approx(0.4)


def test_without_a_peer_nearby_nothing_is_missed(rows: dict[str, Any]) -> None:
    rows[OURS] = row("slimline", 0.5, 2.0)
    found = judged(rows)["no 1"]["places"]["b1/t1"]
    assert found == {"value": None, "ci": None, "over": None, "met": True, "missed_by": 0.0}


def test_the_nearest_are_alike_and_at_most_four_times_as_slow(rows: dict[str, Any]) -> None:
    import peer_goals

    assert peer_goals.nearest(rows, OURS, ahead(rows), "accuracy") == ["of two tools", "alone"]
    rows["of two tools"]["latency_ms"]["b1/t1"] = 9.0  # at b8/t1 it is as near as it was
    rows["alone"] = row("nncf", 0.969, 9.0)
    assert peer_goals.nearest(rows, OURS, ahead(rows), "accuracy") == ["of two tools"]


def test_the_page_says_what_failed_and_what_was_missed(rows: dict[str, Any], tmp_path: Path) -> None:
    rows["alone"] = row("nncf", 0.969, 3.8)
    workload = {
        "primary": "accuracy", "rows": 100, "variants": rows, "ours": OURS, "failed": {"Olive": "ImportError: a | b"},
        "left_out": ["torch-pruning"],
        "nearest": {
            "alone": {
                "accuracy": {"drop": 0.003, "ci": [-0.001, 0.007]}, "macro_f1": {"drop": -0.002, "ci": [-0.02, 0.01]}
            }
        },
        "goals": list(judged(rows).values()),
        "operators": {
            "fp32": {"b1/t1": {"MatMul": 1200.0, "others": 5.0}}, OURS: {"b1/t1": {"Add": 30.0, "others": 4.0}},
        },
    }  # fmt: skip
    from tables import compression

    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/peers.json").write_text(json.dumps({"workloads": {"topics": workload}}))
    measured, aimed, beside, spent = compression.peers(tmp_path).split("\n\n")
    failed, left_out = measured.splitlines()[-2:]
    assert failed.startswith("| Olive | failed: ImportError: a / b |")
    assert left_out.startswith("| torch-pruning | left out |")
    assert len({line.count("|") for line in measured.splitlines()}) == 1
    assert beside.splitlines()[0].startswith(f"| topics: {OURS}, beside | points of accuracy below it |")
    assert beside.splitlines()[2] == "| alone | +0.30 [-0.10, +0.70] | -0.20 [-2.00, +1.00] | 1.90× | 1.90× |"
    lines = aimed.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "1.90× [0.10, 99.00] alone; **missed by 0.10×**" in lines[3]
    assert lines[3].endswith("| no |")
    assert lines[4].count("8.00×") == 2
    assert lines[4].endswith("| yes |")
    assert [line.replace(" ", "") for line in spent.splitlines()[2:]] == [
        "|Add||30|",
        "|MatMul|1,200||",
        "|others|5|4|",
    ]
