"""Alertmanager's own JSON, as version 0.25 sends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slimline.deployment import Deployment
from slimline.monitor.alertmanager import parse, receive
from slimline.monitor.journal import Journal
from tests.monitor.undo.conftest import Make, alarm

TOKEN = "monitor-token-0001"  # noqa: S105
BEARER = f"Bearer {TOKEN}"


def body(revision: str, status: str = "firing", **labels: str) -> bytes:
    own = {"alertname": "SlimlineAccuracyRegressed", "signal": "accuracy", "revision": revision, "variant": "default"}
    alert = {
        "status": status,
        "labels": {"severity": "page", **own, **labels},
        "annotations": {"summary": "'accuracy' fell below its floor", "runbook_url": "https://example.org"},
        "startsAt": "2001-09-09T01:46:55.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://localhost:9090/graph?g0.expr=slimline",
        "fingerprint": "5ef77f1f8a3ecb8d",
    }
    document: dict[str, Any] = {
        "receiver": "undo", "status": status, "alerts": [alert], "groupLabels": own, "commonLabels": own,
        "commonAnnotations": {}, "externalURL": "http://localhost:9093", "version": "4",
        "groupKey": '{}:{alertname="SlimlineAccuracyRegressed"}', "truncatedAlerts": 0,
    }  # fmt: skip
    return json.dumps(document).encode()


def test_a_firing_alert_undoes_once(undo: Make, deployed: Deployment) -> None:
    first, second = deployed.earlier()[0], str(deployed.revision())
    status, answer = receive(undo(), body(second), BEARER, TOKEN)
    assert (status, answer["actions"][0]["outcome"], deployed.revision()) == (200, "done", first)
    assert receive(undo(), body(second), BEARER, TOKEN) == (status, answer)
    assert [each["action"] for each in deployed.history()].count("rollback") == 1


def test_an_alert_on_what_the_monitor_alarmed_about_is_that_alarm(undo: Make, deployed: Deployment) -> None:
    told = alarm(str(deployed.revision()))
    proposed = undo(policy="propose").handle(told, by="monitor")
    _, answer = receive(undo(policy="propose"), body(told.standing.revision), BEARER, TOKEN)
    assert [each["alarm"] for each in answer["actions"]] == [proposed.alarm]


def test_what_is_resolved_or_about_no_release_does_nothing(undo: Make, deployed: Deployment) -> None:
    second = str(deployed.revision())
    assert receive(undo(), body(second, status="resolved"), BEARER, TOKEN) == (200, {"actions": []})
    document = json.loads(body(second))
    del document["alerts"][0]["labels"]["revision"]
    assert parse(json.dumps(document).encode()) == []
    assert deployed.revision() == second


@pytest.mark.parametrize("given", [None, "", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_without_the_token_nothing_is_read(
    undo: Make, deployed: Deployment, journal: Journal, given: str | None
) -> None:
    second = str(deployed.revision())
    assert receive(undo(), body(second), given, TOKEN)[0] == 401
    assert receive(undo(), body(second), "Bearer ", "")[0] == 401, "no token is set: nobody may"
    assert (deployed.revision(), journal.entries()) == (second, [])


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"version": "3", "alerts": []}', b'{"version": "4"}', b'{"version": "4", "alerts": [7]}']
)
def test_anything_else_is_refused(undo: Make, text: bytes) -> None:
    status, answer = receive(undo(), text, BEARER, TOKEN)
    assert status == 400
    assert answer["error"]


def test_what_failed_is_told_again(undo: Make, deployed: Deployment) -> None:
    second = str(deployed.revision())
    (deployed.directory(deployed.earlier()[0]) / "golden.npz").write_bytes(b"x")
    assert receive(undo(), body(second), BEARER, TOKEN)[0] == 500
