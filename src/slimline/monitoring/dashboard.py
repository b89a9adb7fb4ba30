"""A Grafana dashboard of a release, built with Grafana's own Foundation SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CHOSEN = 'revision=~"$revision",variant=~"$variant"'
UID = "slimline"
STATES = {"0": ("ok", "green"), "1": ("watch", "yellow"), "2": ("regressed", "red")}


def build(objectives: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return dashboard.json for the releases of ``task``, with the objectives as lines in its panels."""
    from grafana_foundation_sdk.builders import dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    made = (
        dashboard.Dashboard(f"Slimline: {task}")
        .uid(UID)
        .tags(["slimline"])
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("variant"))
        .with_variable(_variable("revision"))
        .with_row(dashboard.Row("State"))
        .with_panel(_states())
        .with_panel(_table("Blame", f"slimline_blame_info{{{CHOSEN}}}"))
        .with_row(dashboard.Row("Quality"))
    )
    is_share = objectives["primary"] == "accuracy"  # else a mean score in another unit, whose floor is a series of it
    floor = objectives["floors"].get("accuracy") if is_share else None
    title = f"{'accuracy' if is_share else 'Mean score'}, by the labels that arrived"
    shares = [
        (title, "slimline_accuracy_ratio", floor),
        ("Agreement with the teacher", "slimline_agreement_ratio", None),
    ]
    for title, name, least in shares:
        made = made.with_panel(_lines(title, {f"{name}{{{CHOSEN}}}": "{{bound}} {{variant}}"}, "percentunit", least))
    made = (
        made.with_panel(_lines("Drift", {f"slimline_drift_score{{{CHOSEN}}}": "{{feature}}"}, "short"))
        .with_panel(
            _lines(
                "Answers",
                {f"sum by (label) (rate(slimline_predictions_total{{{CHOSEN}}}[5m]))": "{{label}}"},
                "reqps",
            )
        )
        .with_row(dashboard.Row("Speed and traffic"))
    )
    for part, held in objectives["latency"].items():
        quantiles = {
            f'slimline:request_duration_seconds:{q}{{part="{part}",{CHOSEN}}}': f"{q} {{{{variant}}}}"
            for q in ("p50", "p95", "p99")
        }
        slow = {f'slimline:slow:ratio_rate5m{{part="{part}",{CHOSEN}}}': "5m {{variant}}"}
        slow |= {f'slimline:slow:ratio_rate1h{{part="{part}",{CHOSEN}}}': "1h {{variant}}"}
        made = made.with_panel(_lines(f"Latency, {part}", quantiles, "s", held["seconds"]))
        made = made.with_panel(
            _lines(f"Slower than {held['seconds']:g} s, {part}", slow, "percentunit", 1 - held["share"])
        )
    rate = f'sum by (variant) (rate(slimline_request_duration_seconds_count{{part="total",{CHOSEN}}}[1m]))'
    errors = {f"slimline:errors:ratio_rate5m{{{CHOSEN}}}": "{{variant}}"}
    dropped = {f"sum by (reason) (rate(slimline_events_dropped_total{{{CHOSEN}}}[5m]))": "{{reason}}"}
    made = (
        made.with_panel(_lines("Requests", {rate: "{{variant}}"}, "reqps"))
        .with_panel(_lines("Answered with 5xx", errors, "percentunit", objectives["error_share"]))
        .with_panel(_lines("Events dropped", dropped, "ops"))
    )
    document: dict[str, Any] = json.loads(JSONEncoder().encode(made.build()))
    for number, panel in enumerate(document["panels"], 1):
        panel["id"] = number  # the SDK leaves them all 0
    return document


def _variable(name: str) -> Any:
    from grafana_foundation_sdk.builders import dashboard

    query = f"label_values(slimline_request_duration_seconds_count, {name})"
    return (
        dashboard.QueryVariable(name)
        .datasource(_source())
        .query({"query": query, "refId": "A"})
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def _source() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid="$datasource")


def _target(expr: str, legend: str, ref: str = "A") -> Any:
    from grafana_foundation_sdk.builders import prometheus

    return prometheus.Dataquery().ref_id(ref).expr(expr).legend_format(legend).datasource(_source())


def _lines(title: str, queries: Mapping[str, str], unit: str, limit: float | None = None) -> Any:
    from grafana_foundation_sdk.builders import common, dashboard, timeseries
    from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    panel = timeseries.Panel().title(title).unit(unit).span(12).height(8).datasource(_source()).fill_opacity(0)
    for ref, (expr, legend) in zip("ABCDEF", queries.items(), strict=False):
        panel = panel.with_target(_target(expr, legend, ref))
    if limit is not None:
        steps = [Threshold(value=None, color="transparent"), Threshold(value=limit, color="red")]
        panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    return panel


def _states() -> Any:
    from grafana_foundation_sdk.builders import statetimeline
    from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMappingResult

    shown = {
        value: ValueMappingResult(text=text, color=color, index=int(value)) for value, (text, color) in STATES.items()
    }
    return (
        statetimeline.Panel()
        .title("Signals")
        .span(16)
        .height(8)
        .datasource(_source())
        .mappings([ValueMap(options=shown)])
        .with_target(_target(f"slimline:state:max{{{CHOSEN}}}", "{{signal}} {{variant}}"))
    )


def _table(title: str, expr: str) -> Any:
    from grafana_foundation_sdk.builders import table
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    target = _target(expr, "").instant().format(PromQueryFormat.TABLE)
    return table.Panel().title(title).span(8).height(8).datasource(_source()).with_target(target)
