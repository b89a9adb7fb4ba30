"""``slimline window``: one page that needs nothing else, on what the monitor saw in a window of time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slimline import manifest
from slimline.deployment import short
from slimline.errors import DataError
from slimline.monitor import alarm_log, history, window_picture
from slimline.monitor.alarm_log import DETAIL
from slimline.monitor.standing import State
from slimline.monitor.window_picture import Mark

MEASURES = {  # what a signal's value is
    "accuracy": "mean score by labels",
    "agreement": "share of sampled rows that the teacher answers alike",
    "estimate": "mean score estimated without labels",
    "drift": "total variation distance",
    "latency": "share of requests over their objective, 5 min",
    "errors": "share of requests answered with 5xx",
    "traffic": "seconds since the last answer",
    "coverage": "share of old enough rows that have a label",
}


def write(folder: Path, target: Path, since: float, until: float) -> None:
    """Write the page of the state folder ``folder`` from ``since`` to ``until`` (Unix seconds).

    Raises DataError when the folder holds nothing of that time.
    """
    lines = list(history.read(folder, since, until))
    if not lines:
        raise DataError(
            f"{folder}: it holds nothing from {_time(since)} to {_time(until)}; is it the monitor's --state?"
        )
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

        since, until = max(since, lines[0]["time"]), min(until, lines[-1]["time"] + 1)
        alarms = [each for each in _alarms(folder) if each["time"] < until and (each["until"] or until) >= since]
        marks = [
            Mark(each["time"], each["until"] or until, number, each["signal"]) for number, each in enumerate(alarms, 1)
        ]
        picture = window_picture.draw(lines, marks, since, until)
    except ModuleNotFoundError as error:
        raise DataError(f"window: {error.name} isn't installed: pip install 'slimline[monitor]'") from error
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
    )
    manifest.write_text(
        target,
        pages.get_template("window.html.j2").render(
            since=_time(since), until=_time(until), picture=picture.svg, alarms=[_told(each) for each in alarms],
            standings=_standings(lines),
        ),
    )  # fmt: skip


def _alarms(folder: Path) -> list[dict[str, Any]]:
    """Return every alarm ever raised with what came of it and when it was resolved, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for entry in alarm_log.entries(folder):
        if entry["event"] == "raised":
            standing = entry["standing"]
            found[entry["id"]] = {
                "time": entry["time"], "until": None, "blame": None, "undo": None, **standing,
            }  # fmt: skip
        elif entry["id"] in found and entry["event"] == "resolved":
            found[entry["id"]]["until"] = entry["time"]
        elif entry["id"] in found:
            found[entry["id"]] |= {key: entry[key] for key in ("blame", "undo") if key in entry}
    return list(found.values())


def _told(alarm: dict[str, Any]) -> dict[str, str]:
    blame, undo = alarm["blame"], alarm["undo"]
    return {
        "when": _time(alarm["time"]),
        "until": "still holds" if alarm["until"] is None else f"until {_time(alarm['until'])}",
        "what": f"{alarm['signal']} of {short(alarm['revision'])} as {alarm['variant']}",
        "message": alarm["message"],
        "blame": "not explained" if blame is None else f"{blame['verdict']}: {blame['why']}",
        "undo": "nothing yet" if undo is None else f"{undo['outcome']}: {undo['why']}",
    }


def _standings(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last line of each revision and variant, as rows of a table; parts of a signal unless ok."""
    last = {(line["revision"], line["variant"]): line for line in lines}
    rows = []
    for (revision, variant), line in last.items():
        for signal, (state, value, low, high, limit) in line["standings"].items():
            if DETAIL in signal and state == State.OK:
                continue
            rows.append(
                {
                    "revision": short(revision), "variant": variant, "signal": signal,
                    "measure": MEASURES.get(signal.partition(DETAIL)[0], ""),
                    "state": State(state).name.lower(), "value": _number(value),
                    "interval": "" if low is None else f"{_number(low)} to {_number(high)}", "limit": _number(limit),
                    "when": _time(line["time"]),
                }
            )  # fmt: skip
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _time(time: float) -> str:
    if time in {float("-inf"), float("inf")}:
        return "ever"
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
