"""Alertmanager's webhook, version 4: alerts on a release become alarms for undo.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from slimline.errors import UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.journal import Journal
from slimline.monitor.standing import Standing, State
from slimline.monitor.undo import Undo, alarm_of

VERSION = "4"
SAME_SECONDS = 3600.0  # an alert that fires so long after an alarm on the same signal of the same release tells it
MOST_BYTES = 1 << 20


def receive(undo: Undo, body: bytes, authorization: str | None, token: str) -> tuple[int, dict[str, Any]]:
    """Handle the body of a POST; return the HTTP status and the JSON to answer with.

    ``authorization`` is the request's header; without the bearer token in it nothing is read. An action that failed is
    answered with 500, which Alertmanager repeats; one that may not be done now with 200: the alert will be told again.
    """
    given = (authorization or "").partition(" ")
    right = hmac.compare_digest(given[2].strip().encode(), token.encode())
    if not token or given[0].lower() != "bearer" or not right:
        return 401, {"error": "this needs its bearer token"}
    if len(body) > MOST_BYTES:
        return 413, {"error": f"over {MOST_BYTES} bytes"}
    try:
        alarms = parse(body, undo.journal)
    except UndoError as error:
        return 400, {"error": str(error)}
    actions = [undo.handle(each, by="alertmanager") for each in alarms]
    failed = any(each.outcome == "failed" for each in actions)
    return 500 if failed else 200, {"actions": [each.as_dict() for each in actions]}


def parse(body: bytes, journal: Journal | None = None) -> list[Alarm]:
    """Return an Alarm for each firing alert with the labels signal, revision and variant; others are left out.

    An alert on what the monitor alarmed about before, as ``journal`` says, becomes that alarm, under its id. Raises
    UndoError when the body isn't of version 4.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise UndoError(f"the body isn't JSON ({error})") from None
    if (
        not isinstance(document, dict)
        or document.get("version") != VERSION
        or not isinstance(document.get("alerts"), list)
    ):
        raise UndoError(f"expected Alertmanager's webhook of version {VERSION}, with alerts")
    told = [alarm for each in document["alerts"] if (alarm := _alarm(each)) is not None]
    known = [] if journal is None or not told else _alarms(journal)
    return [next((each for each in known if _same(each, alarm)), alarm) for alarm in told]


def _alarm(alert: Any) -> Alarm | None:
    try:
        labels, notes = alert["labels"], alert.get("annotations", {})
        if alert["status"] != "firing" or not {"signal", "revision", "variant"} <= labels.keys():
            return None
        since = datetime.fromisoformat(alert["startsAt"]).timestamp()
        standing = Standing(
            str(labels["signal"]), str(labels["revision"]), str(labels["variant"]), State.REGRESSED,
            str(notes.get("summary", labels.get("alertname", ""))), since, 0,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UndoError(f"an alert can't be read: {type(error).__name__}: {error}") from None
    return Alarm(f"{standing.signal}:{standing.revision}:{standing.variant}:{since:.0f}", since, standing)


def _alarms(journal: Journal) -> Sequence[Alarm]:
    return [alarm_of(each) for each in reversed(journal.entries()) if "evidence" in each]


def _same(known: Alarm, told: Alarm) -> bool:
    a, b = known.standing, told.standing
    same = (a.signal, a.revision, a.variant) == (b.signal, b.revision, b.variant)
    return same and abs(told.time - known.time) < SAME_SECONDS
