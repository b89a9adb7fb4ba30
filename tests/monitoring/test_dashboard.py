"""The dashboard: queries that Prometheus parses, on series that exist, and objectives as lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Metric

from slimline import monitoring
from slimline.endpoint.metrics import Metrics, Series
from slimline.monitor.metrics import METRICS
from slimline.monitoring.objectives import objectives
from tests.monitoring.conftest import ROW, SECTIONS, run


def panels(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "dashboard.json").read_text())["panels"]
    return found


def test_prometheus_parses_every_query(folder: Path, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels(folder) for target in panel.get("targets", [])]
    assert len(queries) > 10
    rules = [
        {"record": "q", "expr": re.sub(r"\$\w+", ".*", query), "labels": {"n": str(n)}}
        for n, query in enumerate(queries)
    ]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    done = run(tmp_path, "promtool", "check", "rules", "queries.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_recorded_series_it_shows_are_recorded(folder: Path) -> None:
    text = (folder / monitoring.RULES).read_text()
    recorded = set(re.findall(r"record: (\S+)", text))
    shown = {
        name
        for panel in panels(folder)
        for t in panel.get("targets", [])
        for name in re.findall(r"slimline:[\w:]+", t["expr"])
    }
    assert shown
    assert shown <= recorded


def test_series_it_shows_are_those_of_endpoint_and_monitor(folder: Path) -> None:
    counted = {sample.name for family in metrics_of_an_endpoint() for sample in family.samples}
    text = (folder / "dashboard.json").read_text()
    shown = set(re.findall(r"\bslimline_\w+", text))
    assert len(shown) > 5
    assert shown <= counted | set(METRICS)


def metrics_of_an_endpoint() -> list[Metric]:
    made = Metrics()
    Series(made, "r", "v", ["a"])
    return list(made.registry.collect())


def test_panels_have_ids_of_their_own_and_objectives_as_lines(make: Any, tmp_path: Path) -> None:
    held = make(tmp_path, SECTIONS["two parts"])
    numbers = [panel["id"] for panel in panels(tmp_path)]
    assert sorted(set(numbers)) == numbers
    by_title = {panel["title"]: panel for panel in panels(tmp_path)}
    for part in ("total", "predict"):
        steps = by_title[f"Latency, {part}"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[-1]["value"] == held["latency"][part]["seconds"]


def quality(tmp_path: Path, drops: dict[str, float], **measured: Any) -> tuple[str, list[float], dict[str, float]]:
    """The title and lines of the panel of quality, and the floors, of a release with such a budget."""
    row = ROW | {"rmse": 2.0, "mae": 1.0, "macro_f1": 0.8, "lower_is_better": ["rmse", "mae"]}
    held = objectives(
        {"budget": {"max_drop": drops}}, {"stages": {"teacher": row, "factorize": row}} | measured, "factorize"
    )
    monitoring.write(tmp_path, held, "prices")
    panel = next(each for each in panels(tmp_path) if "by the labels" in each["title"])
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return panel["title"], [each["value"] for each in steps if each["value"]], held["floors"]


def test_a_floor_is_where_quality_ends(tmp_path: Path) -> None:
    """Of a metric that is better lower it is the most that it may be, and no line among scores."""
    title, lines, floors = quality(tmp_path, {"rmse": 0.5}, primary="rmse", higher_is_better=False)
    assert floors == {"rmse": 2.5}
    assert (title, lines) == ("Mean score, by the labels that arrived", [])


def test_the_panel_of_quality_is_the_primary_metrics(tmp_path: Path) -> None:
    title, lines, _ = quality(tmp_path, {"macro_f1": 0.1, "accuracy": 0.02}, primary="accuracy")
    assert (title, lines) == ("accuracy, by the labels that arrived", [0.88])
