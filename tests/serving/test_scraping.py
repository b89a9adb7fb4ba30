"""What scales and what scrapes asks for series and ports that there are."""

from __future__ import annotations

import importlib
import json
import re
from itertools import chain
from pathlib import Path

from slimline.monitoring import servers
from tests.monitoring.conftest import run
from tests.serving.manifests import load


def endpoint_series() -> dict[str, list[dict[str, str]]]:
    """Return {name: labels of each series} of an endpoint that has answered nothing yet."""
    metrics = importlib.import_module("slimline.endpoint.metrics")
    made = metrics.Metrics()
    metrics.Series(made, "sha256:0", "default", ["cat"])
    found: dict[str, list[dict[str, str]]] = {}
    for sample in chain.from_iterable(family.samples for family in made.registry.collect()):
        found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_the_autoscaler_asks_for_what_the_adapter_derives_from_the_endpoints_series(tmp_path: Path) -> None:
    rules = load("k8s/metrics-adapter.yaml")["rules"]["custom"]
    wanted = {metric["pods"]["metric"]["name"] for metric in load("k8s/autoscaler.yaml")["spec"]["metrics"]}
    assert {rule["name"]["as"] for rule in rules} == wanted
    known = endpoint_series()
    for rule in rules:
        found = re.fullmatch(r'(\w+)\{namespace!="",pod!=""\}', rule["seriesQuery"])
        assert found
        series, query = found[1], rule["metricsQuery"]
        assert re.findall(r"(\w+)\{", query) == [series]
        assert query.count("<<.LabelMatchers>>") == query.count("<<.GroupBy>>") == 1
        chosen = dict(re.findall(r'(\w+)="([^"]*)"', query))
        assert chosen.keys() == {"part"}, "the parts of a request overlap: one of them"
        assert any(chosen.items() <= labels.items() for labels in known[series])
    asked = [
        rule["metricsQuery"].replace("<<.LabelMatchers>>", 'pod="a"').replace("<<.GroupBy>>", "pod") for rule in rules
    ]
    recorded = [{"record": f"asked_{number}", "expr": each} for number, each in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "adapter", "rules": recorded}]}))
    done = run(tmp_path, "promtool", "check", "rules", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_what_compose_runs() -> None:
    """Under the names that a release's own rules ask for, at the ports where the commands serve."""
    services, ports = (
        load("compose.yaml")["services"],
        {"endpoint": 3000, "monitor": 3001, "probe": 3002, "triton": 8002},
    )
    jobs = load("prometheus.yml")["scrape_configs"]
    targets = {each for job in jobs for each in job["static_configs"][0]["targets"]}
    assert targets == {f"{name}:{port}" for name, port in ports.items() if name in services}
    assert {job["job_name"] for job in jobs} == {*servers.JOBS, *servers.NAMED}
