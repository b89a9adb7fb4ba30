"""Configuration by the servers' own tools, routes by Alertmanager's, and the operator's resources beside the rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimline import monitoring
from tests.monitoring.conftest import SECTIONS, run


def load(folder: Path, name: str) -> list[Any]:
    return list(yaml.safe_load_all((folder / name).read_text()))


def test_prometheus_and_alertmanager_take_their_files(folder: Path) -> None:
    for command in (
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ):
        done = run(folder, *command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "SlimlineAccuracyRegressed", "severity": "page", "signal": "accuracy"}, "undo,pages"),
        ({"alertname": "SlimlineErrorsRegressed", "severity": "page", "signal": "errors"}, "undo,pages"),
        ({"alertname": "SlimlineLatencyRegressed", "severity": "page", "signal": "latency"}, "pages"),
        ({"alertname": "SlimlineErrorBurn", "severity": "page", "signal": "errors"}, "pages"),
        ({"alertname": "SlimlineBlamed", "severity": "page", "signal": "accuracy"}, "pages"),
        ({"alertname": "SlimlineDrift", "severity": "ticket", "signal": "drift"}, "tickets"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["alertname"],
)
def test_regressions_that_may_be_undone_go_to_the_webhook_too(
    make: Any, tmp_path: Path, labels: dict[str, str], receivers: str
) -> None:
    make(tmp_path, {})
    given = [f"{name}={value}" for name, value in labels.items()]
    done = run(tmp_path, "amtool", "config", "routes", "test", "--config.file", "alertmanager.yml", *given)
    assert done.stdout.strip() == receivers, done.stderr


def test_nothing_is_sent_to_the_webhook_when_undo_is_off(make: Any, tmp_path: Path) -> None:
    make(tmp_path, SECTIONS["labels expected"])
    assert "webhook" not in (tmp_path / "alertmanager.yml").read_text()


def test_the_operator_gets_the_same_rules_and_finds_all_services(folder: Path) -> None:
    rule, *monitors = load(folder, "kubernetes.yaml")
    (plain,) = load(folder, monitoring.RULES)
    assert rule["spec"]["groups"] == plain["groups"]
    jobs = {job["job_name"] for job in load(folder, "prometheus.yml")[0]["scrape_configs"]}
    label = "app.kubernetes.io/name"
    found = {each["spec"]["selector"]["matchLabels"][label] for each in monitors}
    assert found == jobs - {"triton"}, "jobLabel makes the service's name the job that the rules ask for"
    assert "slimline-probe" in found, "what `slimline probe --every` serves"
    for name in ("service", "monitor-service"):
        service = yaml.safe_load((Path(__file__).parents[2] / f"serving/k8s/{name}.yaml").read_text())
        found.remove(service["metadata"]["labels"][label])
        assert {each["spec"]["endpoints"][0]["port"] for each in monitors} == {service["spec"]["ports"][0]["name"]}
    assert found == {"slimline-probe"}, "people start that one themselves"


# What the operator's CRDs of version 0.82 allow of what Prometheus' own files may hold.
DURATION = re.compile(r"0|(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
RULE = {"alert", "annotations", "expr", "for", "keep_firing_for", "labels", "record"}
GROUP = {"interval", "labels", "limit", "name", "query_offset", "rules"}


def test_the_operators_schema_takes_its_resources(folder: Path) -> None:
    rule, *monitors = load(folder, "kubernetes.yaml")
    groups = rule["spec"]["groups"]
    assert len({group["name"] for group in groups}) == len(groups), "a map by name"
    for group in groups:
        assert group.keys() <= GROUP
        for each in group["rules"]:
            assert {"expr"} <= each.keys() <= RULE
            assert len(each.keys() & {"alert", "record"}) == 1
            assert DURATION.fullmatch(each.get("for", "0")), each["for"]
            words = [*each.get("labels", {}).values(), *each.get("annotations", {}).values()]
            assert all(isinstance(word, str) for word in words), "YAML reads an unquoted 5 as a number"
    for monitor in monitors:
        assert monitor["spec"].keys() == {"jobLabel", "selector", "endpoints"}
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint.keys() == {"port", "path", "interval"}
            assert DURATION.fullmatch(endpoint["interval"])
    for each in (rule, *monitors):
        assert each["apiVersion"] == "monitoring.coreos.com/v1"
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", each["metadata"]["name"])


def test_the_same_objectives_give_the_same_bytes(make: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, SECTIONS["two parts"])
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert {"objectives.json", "rules.yml", "dashboard.json", "alertmanager.yml"} < set(files[0])
