"""Recording and alerting rules for Prometheus, filled in from rules.yaml by a release's objectives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from slimline import runbooks

HERE = Path(__file__).parent
TEMPLATE = HERE / "rules.yaml"
SECONDS = {"m": 60, "h": 3600, "d": 86400}
# A month's budget of slow or failed requests goes up in smoke `factor` times too fast: the pairs of windows of the SRE
# Workbook (Beyer et al. 2018, chapter 5), and a first one for when half of all requests are bad.
BURNS = (
    ("5m", "1m", float("inf"), "page"),
    ("1h", "5m", 14.4, "page"),
    ("6h", "30m", 6.0, "page"),
    ("1d", "2h", 3.0, "ticket"),
    ("3d", "6h", 1.0, "ticket"),
)
WORST = 0.5  # no share above it is waited for
STOPPED = "a tenth of what it was"  # what the monitor calls low where no share of labels is asked for
REQUESTS = 100  # fewer say nothing about one percent
WINDOWS = sorted({each for pair in BURNS for each in pair[:2]}, key=lambda each: int(each[:-1]) * SECONDS[each[-1]])
Values = dict[str, str]


def groups(objectives: Mapping[str, Any], pages: str) -> list[dict[str, Any]]:
    """Return rule groups: what is recorded, and the alerts.

    They link to ``pages`` + NAME.md where that is a URL; a path leads nobody anywhere who reads a notification, so
    else they carry the page itself.
    """
    template = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    recorded = [
        {key: filled(value, values) for key, value in entry.items() if key != "each"}
        for entry in template["recorded"]
        for values in expanded(entry, objectives)
    ]
    alerts = [
        _alert(entry, values, pages)
        for entry in template["alerts"]
        for values in expanded(entry, objectives)
        if not entry.get("if") or objectives[entry["if"]]
    ]
    return [{"name": "slimline-recorded", "rules": recorded}, {"name": "slimline-alerts", "rules": alerts}]


def names() -> list[str]:
    """Return the names of all alerts that a release can have, each once."""
    return list({entry["alert"]: None for entry in yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))["alerts"]})


def expanded(entry: Mapping[str, Any], objectives: Mapping[str, Any]) -> Iterator[Values]:
    """Yield what an entry of rules.yaml is filled in with, once for each rule that it makes."""
    each = entry.get("each", [])
    for part, held in objectives["latency"].items() if "part" in each else [("", None)]:
        allowed = round(1 - held["share"], 9) if held else objectives["error_share"]
        fixed = {
            "part": part,
            "bound": str(held["seconds"]) if held else "",
            "allowed": f"{100 * allowed:g}%",
            "requests": str(REQUESTS),
            "idle": _duration(60 * objectives["idle_minutes"]),
            "min_coverage": f"{objectives['min_coverage']:.0%}" if objectives["min_coverage"] else STOPPED,
            "label_delay": _duration(3600 * objectives["label_delay_hours"]),
            "queue": f"{max((each['seconds'] for each in objectives['latency'].values()), default=0):g}",
        }
        if "window" in each:
            yield from (fixed | {"window": window} for window in WINDOWS)
        elif "burn" in each:
            for long, short, factor, severity in BURNS:
                limit = f"{min(factor * allowed, WORST):g}"
                yield fixed | {"long": long, "short": short, "severity": severity, "limit": limit}
        else:
            yield fixed


def filled(value: Any, values: Mapping[str, str]) -> Any:
    """Return ``value`` with each <NAME> in its texts replaced, at any depth."""
    if isinstance(value, Mapping):
        return {filled(key, values): filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, values) for each in value]
    return re.sub(r"<([a-z_]+)>", lambda match: values[match[1]], value) if isinstance(value, str) else value


def _alert(entry: Mapping[str, Any], values: Values, pages: str) -> dict[str, Any]:
    entry = {key: filled(value, values) for key, value in entry.items() if key not in {"each", "if"}}
    name, labels = entry["alert"], {"severity": entry["severity"], **entry.get("labels", {})}
    if signal := entry.get("signal"):
        labels["signal"] = signal
    notes = {"summary": entry["summary"]}
    notes |= {"runbook_url": f"{pages}{name}.md"} if "://" in pages else {"runbook": runbooks.text(name)}
    if signal or "slimline:state:max" in entry["expr"]:
        notes["blame"] = blame(signal or "%s")
    made = {"alert": name, "expr": entry["expr"]}
    return made | ({"for": entry["for"]} if "for" in entry else {}) | {"labels": labels, "annotations": notes}


def blame(signal: str) -> str:
    """Return an annotation that looks up what ``slimline blame`` said of the alert's signal and release.

    It is no part of the expression: an alert fires before it was examined, and stays the same one afterwards.
    """
    own = "$labels.signal " if signal == "%s" else ""
    series = f'slimline_blame_info{{signal="{signal}",revision="%s",variant="%s"}}'
    query = f"printf `{series}` {own}$labels.revision $labels.variant | query"
    shown = '{{ . | label "verdict" }}{{ with . | label "stage" }} {{ . }}{{ end }}'
    return (
        f"{{{{ with {query} }}}}{{{{ with . | first }}}}{shown}{{{{ end }}}}{{{{ else }}}}not examined yet{{{{ end }}}}"
    )


def _duration(seconds: float) -> str:
    """Return seconds as Prometheus writes them: 90s, 15m, 24h."""
    for unit in ("h", "m"):
        if seconds >= SECONDS[unit] and seconds % SECONDS[unit] == 0:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.0f}s"
