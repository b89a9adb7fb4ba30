"""What a run led to, by the monitor's log, the deployment's history and every answer, and which goals it kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import planted
from scenarios import Scenario
from servers import Loop
from traffic import Sent, Traffic

from slimline.monitor import alarm_log

QUALITY = ("accuracy", "agreement")
ADVISED = "undo advised against going back"
LABELS, UNLABELLED, BACK, LATENCY = 500, 1500, 60.0, 120.0


@dataclass(frozen=True)
class Outcome:
    """``document`` is result.json, ``goals`` {what was asked: was it so}."""

    document: dict[str, Any]
    goals: dict[str, bool]


def watched(loop: Loop, traffic: Traffic, scenario: Scenario, planted_at: float, first: str | None) -> Outcome:
    """Gather the outcome of a run; times are seconds after ``planted_at``."""
    alarms = list(_alarms(alarm_log.entries(loop.state), planted_at))
    sent = traffic.sent
    revisions = {each.revision for each in sent if each.revision is not None and each.revision != first}
    bad = next(iter(revisions), None)
    quality = next((each for each in alarms if each["signal"] in QUALITY), None)
    until = planted_at + quality["at"] if quality else float("inf")
    wrong = [each.time for each in sent if each.revision == bad] if bad else []
    document = {
        "scenario": scenario.letter,
        "title": scenario.title,
        "requests": len(sent),
        "failed": traffic.failed,
        "labels": traffic.labels_written,
        "accuracy": [_right(sent, before=planted_at), _right(sent, after=planted_at)],
        "points_lost": planted.lost(loop.folder / "planted") if scenario.release else {},
        "alarms": alarms,
        "requests_until_alarm": sum(planted_at < each.time <= until for each in sent) if quality else None,
        "back_after": round(wrong[-1] - until, 2) if quality and wrong and sent[-1].revision == first else None,
        "planted_requests": len(wrong),
        "pages": _told(loop, "pages"),
        "tickets": _told(loop, "tickets"),
        "verdicts_told": _verdicts_told(loop),
        "history": [each["action"] for each in loop.deployment.history()],
    }
    return Outcome(document | {"goals": (goals := _goals(document, scenario))}, goals)


def _right(sent: list[Sent], before: float = math.inf, after: float = 0.0) -> float:
    """Return the share of right answers among those that were given between two times."""
    right = [each.right for each in sent if after < each.time <= before and each.status == 200]
    return round(sum(right) / max(len(right), 1), 4)


def _alarms(entries: Iterable[dict[str, Any]], planted_at: float) -> Iterable[dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    raised = []
    for entry in entries:
        if entry["event"] == "raised":
            raised.append(entry)
        elif entry["event"] == "answered":
            answers[entry["id"]] = entry
    for entry in raised:
        standing, answer = entry["standing"], answers.get(entry["id"], {})
        blame = answer.get("blame") or {}
        yield {
            "signal": standing["signal"],
            "at": round(entry["time"] - planted_at, 2),
            "rows": standing["count"],
            "message": standing["message"],
            "blame": blame.get("verdict"),
            "why": blame.get("why"),
            "undo": (answer.get("undo") or {}).get("outcome"),
        }


def _told(loop: Loop, receiver: str) -> list[str]:
    names = [
        each["labels"]["alertname"]
        for note in loop.pager.told
        if note["receiver"] == receiver
        for each in note["alerts"]
    ]
    return sorted(set(names))


def _verdicts_told(loop: Loop) -> list[str]:
    """Return the verdicts that a notification named: a stage, or data, serving, nothing."""
    labels = [each["labels"] for note in loop.pager.told for each in note["alerts"]]
    return sorted({each.get("stage") or each["verdict"] for each in labels if "verdict" in each})


def _goals(found: dict[str, Any], scenario: Scenario) -> dict[str, bool]:
    quality = [each for each in found["alarms"] if each["signal"] in QUALITY]
    first = quality[0] if quality else None
    blamed = {each["blame"] for each in found["alarms"] if each["blame"]}
    goals = {"no request failed": found["failed"] == 0}
    if scenario.release:
        lost = max(found["points_lost"].values())
        within = first is not None and (
            (first["signal"] == "accuracy" and first["rows"] <= LABELS)
            or (first["signal"] == "agreement" and found["requests_until_alarm"] <= UNLABELLED)
        )
        back = found["back_after"]
        goals |= {
            f"at least 12 points were lost ({lost:.1f})": lost >= 12,
            f"alarm within {LABELS} labels or {UNLABELLED} requests": within,
            f"blamed on {scenario.blame}": first is not None and first["blame"] == scenario.blame,
            f"traffic back within {BACK:.0f} s of the alarm": back is not None and back <= BACK,
            "people were told": bool(found["pages"]),
            "a notification named the verdict": scenario.blame in found["verdicts_told"],
        }
    elif scenario.letter in {"c", "g"}:
        harmful = scenario.letter == "c"
        told = {"drift was seen": "SlimlineDrift" in found["tickets"], "people were told": bool(found["pages"])}
        goals |= {
            **(told if harmful else {"no page": not found["pages"]}),
            **({ADVISED: first is not None and first["undo"] == "advised"} if harmful else {}),
            "no stage was blamed": blamed <= {"data", "nothing", "serving"},
            "nothing was rolled back": "rollback" not in found["history"],
        }
    elif scenario.letter == "d":
        goals |= {
            "no false alarm of quality": not quality,
            "nothing was rolled back": "rollback" not in found["history"],
        }
    elif scenario.blame == "serving":
        slow = next((each for each in found["alarms"] if each["signal"].startswith("latency")), None)
        goals |= {
            f"alarm within {LATENCY:.0f} s": slow is not None and slow["at"] <= LATENCY,
            f"blamed on {scenario.blame}": slow is not None and slow["blame"] == scenario.blame,
            ADVISED: slow is not None and slow["undo"] == "advised",
            "a notification named the verdict": scenario.blame in found["verdicts_told"],
            "nothing was rolled back": "rollback" not in found["history"],
        }
    else:
        goals |= {"silence": not found["alarms"], "nothing was rolled back": "rollback" not in found["history"]}
    return goals
