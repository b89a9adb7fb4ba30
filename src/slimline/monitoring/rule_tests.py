"""Unit tests of a release's rules, for ``promtool test rules``: each recorded series, each alert silent and firing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from slimline.monitoring import rules

TEMPLATE = Path(__file__).with_name("rule_tests.yaml")
STEP = 30  # seconds between samples
AT = 6 * 60  # when is looked, in seconds: the five minutes of most windows are full, longer ones take what there is
STEPS = AT // STEP
COUNT, SLOW = 4096, 1024  # requests a step, and those within the bound: powers of two, so that ratios are exact
Values = Mapping[str, str]


def document(objectives: Mapping[str, Any], groups: list[dict[str, Any]], file: str) -> dict[str, Any]:
    """Return the test file for the rule groups in ``file``."""
    recorded, alerts = (group["rules"] for group in groups)
    tests = [
        *_alerts(objectives, alerts),
        *(_slow(part, held, recorded) for part, held in objectives["latency"].items()),
        _errors(recorded),
        _quantiles(recorded),
        _others(recorded),
    ]
    return {"rule_files": [file], "evaluation_interval": f"{STEP}s", "tests": tests}


def _alerts(objectives: Mapping[str, Any], alerts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")):
        for values in rules.expanded(entry, objectives):
            named = [each for each in alerts if each["alert"] == entry["alert"]]
            if values["part"]:
                named = [each for each in named if f'part="{values["part"]}"' in each["expr"]]
            if severity := entry.get("severity"):
                named = [each for each in named if each["labels"]["severity"] == severity]
            if not named:
                continue  # an objective that isn't set
            filled = rules.filled(
                {key: value for key, value in entry.items() if key != "each"}, _steps(values, objectives)
            )
            looked = {"eval_time": filled.get("at", f"{AT}s"), "alertname": entry["alert"]}
            for series in filled.get("silent", []):
                yield _test(f"{entry['alert']} is silent", series, alerts=[looked | {"exp_alerts": []}])
            expected = [_expected(rule, filled) for rule in named]
            yield _test(f"{entry['alert']} fires", filled["fires"], alerts=[looked | {"exp_alerts": expected}])


def _steps(values: Values, objectives: Mapping[str, Any]) -> Values:
    """Return ``values`` with numbers of requests a step that stay within an objective, and how long idling takes."""
    held = objectives["latency"].get(values["part"], {"share": 1.0})
    idle = int(60 * objectives["idle_minutes"]) + AT
    return {
        **values,
        "calm": f"{COUNT - int(COUNT * (1 - held['share']) / 2)}",
        "calm_errors": f"{COUNT * objectives['error_share'] / 2:g}",
        "idle_steps": f"{idle // STEP}",
        "idle_end": f"{idle}s",
    }


def _expected(rule: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    shows = iter(entry["shows"])
    notes = dict(rule["annotations"])
    notes["summary"] = re.sub(r"\{\{.*?\}\}", lambda _: next(shows), notes["summary"])
    if "blame" in notes:
        notes["blame"] = entry["blame"]
    return {"exp_labels": {**rule["labels"], **entry["labels"]}, "exp_annotations": notes}


def _test(name: str, series: Mapping[str, str], **expected: list[dict[str, Any]]) -> dict[str, Any]:
    given = [{"series": each, "values": values} for each, values in series.items()]
    kinds = {"alerts": "alert_rule_test", "values": "promql_expr_test"}
    return {
        "name": name,
        "interval": f"{STEP}s",
        "input_series": given,
        **{kinds[kind]: each for kind, each in expected.items()},
    }


def _value(rule: Mapping[str, Any], value: float, **labels: str) -> dict[str, Any]:
    own = "".join(f'{name}="{each}",' for name, each in sorted((labels | rule.get("labels", {})).items()))
    sample = {"labels": f"{rule['record']}{{{own.rstrip(',')}}}", "value": value}
    matchers = "".join(f'{name}="{each}",' for name, each in rule.get("labels", {}).items())
    return {"expr": f"{rule['record']}{{{matchers.rstrip(',')}}}", "eval_time": f"{AT}s", "exp_samples": [sample]}


def _slow(part: str, held: Mapping[str, Any], recorded: list[dict[str, Any]]) -> dict[str, Any]:
    own = f'part="{part}",revision="r",variant="v"'
    series = {
        f'slimline_request_duration_seconds_bucket{{le="{held["seconds"]}",{own}}}': f"0+{SLOW}x{STEPS}",
        f"slimline_request_duration_seconds_count{{{own}}}": f"0+{COUNT}x{STEPS}",
    }
    named = [each for each in recorded if ":slow:" in each["record"] and each["labels"]["part"] == part]
    values = [_value(each, 1 - SLOW / COUNT, revision="r", variant="v") for each in named]
    return _test(f"the share of requests that are slow in {part}", series, values=values)


def _errors(recorded: list[dict[str, Any]]) -> dict[str, Any]:
    series = {
        'slimline_errors_total{status="500",revision="r",variant="v"}': f"0+{SLOW}x{STEPS}",
        'slimline_errors_total{status="400",revision="r",variant="v"}': f"0+{SLOW}x{STEPS}",
        'slimline_request_duration_seconds_count{part="total",revision="r",variant="v"}': f"0+{COUNT - SLOW}x{STEPS}",
        'slimline_errors_total{status="500",revision="all",variant="v"}': f"0+{SLOW}x{STEPS}",
    }
    values = []
    for rule in (each for each in recorded if ":errors:" in each["record"]):
        test = _value(rule, SLOW / COUNT, revision="r", variant="v")
        test["exp_samples"] += _value(rule, 1.0, revision="all", variant="v")["exp_samples"]
        values.append(test)
    for rule in (each for each in recorded if ":requests_and_errors:" in each["record"]):
        steps = _seconds(rule) // STEP
        test = _value(rule, float(COUNT * steps), revision="r", variant="v")
        test["exp_samples"] += _value(rule, float(SLOW * steps), revision="all", variant="v")["exp_samples"]
        values.append(test)
    return _test("the share of requests that fail, of a release that answers none too", series, values=values)


def _seconds(rule: Mapping[str, Any]) -> int:
    """Return how much of the window of an ``increase`` is full when it is looked at."""
    window = rule["record"].rpartition("increase")[2]
    return min(int(window[:-1]) * rules.SECONDS[window[-1]], AT)


def _quantiles(recorded: list[dict[str, Any]]) -> dict[str, Any]:
    own = 'part="encode",revision="r",variant="v"'
    name = "slimline_request_duration_seconds_bucket"
    series = {f'{name}{{le="{bound}",{own}}}': f"0+{count}x{STEPS}" for bound, count in (("1.0", 0), ("2.0", COUNT))}
    series |= {f'{name}{{le="+Inf",{own}}}': f"0+{COUNT}x{STEPS}"}
    values = []
    for rule in (each for each in recorded if "histogram_quantile" in each["expr"]):
        quantile = float(re.findall(r"quantile\(([\d.]+)", rule["expr"])[0])
        rate = COUNT / STEP
        inside = 1.0 + (2.0 - 1.0) * (quantile * rate / rate)
        values.append(_value(rule, inside, part="encode", revision="r", variant="v"))
    return _test("quantiles of latency", series, values=values)


def _others(recorded: list[dict[str, Any]]) -> dict[str, Any]:
    series = {
        'slimline_request_duration_seconds_count{part="total",revision="r",variant="v"}': f"0+{COUNT}x{STEPS}",
        'slimline_regression_state{signal="accuracy",revision="r",variant="v",instance="a"}': f"0+0x{STEPS}",
        'slimline_regression_state{signal="accuracy",revision="r",variant="v",instance="b"}': f"1x{STEPS}",
    }
    values = []
    for rule in recorded:
        if ":requests:" in rule["record"]:
            values.append(_value(rule, float(COUNT * _seconds(rule) // STEP), revision="r", variant="v"))
        elif ":state:" in rule["record"]:
            values.append(_value(rule, 1.0, signal="accuracy", revision="r", variant="v"))
    return _test("requests, and the worst state that several monitors report", series, values=values)
