"""Rules by Debian's promtool: valid, and each one held by a unit test that notices when it changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import generate_latest

from slimline import manifest, monitoring, params
from slimline.endpoint.metrics import Metrics, Series
from slimline.monitor import signals, watched
from slimline.monitor.metrics import METRICS
from slimline.monitor.responding import UNBLAMED
from slimline.monitoring import rules
from tests.monitor.conftest import answered, watched_releases
from tests.monitoring.conftest import SECTIONS, run

__all__ = ["answered", "watched_releases"]

ROOT = Path(__file__).parents[2]


def rules_of(folder: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((folder / monitoring.RULES).read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_promtool_takes_them_and_their_tests_pass(folder: Path) -> None:
    for command in (("check", "rules", monitoring.RULES), ("test", "rules", monitoring.RULE_TESTS)):
        done = run(folder, "promtool", *command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_held_by_a_test(make: Any, tmp_path: Path) -> None:
    """An alert that never fires, one that always does, and a recorded series of twice the value are all noticed."""
    make(tmp_path, SECTIONS["labels expected"])
    document = yaml.safe_load((tmp_path / monitoring.RULES).read_text())
    tests = yaml.safe_load((tmp_path / monitoring.RULE_TESTS).read_text())
    for rule in [rule for group in document["groups"] for rule in group["rules"]]:
        right, name = rule["expr"], rule.get("alert", rule.get("record"))
        own = [
            each for each in tests["tests"] if name in str(each.get("alert_rule_test", each.get("promql_expr_test")))
        ]
        (tmp_path / monitoring.RULE_TESTS).write_text(yaml.safe_dump(tests | {"tests": own}))
        for wrong in ["vector(0) > 1", "vector(1)"] if "alert" in rule else [f"2 * ({right})"]:
            rule["expr"] = wrong
            (tmp_path / monitoring.RULES).write_text(yaml.safe_dump(document))
            done = run(tmp_path, "promtool", "test", "rules", monitoring.RULE_TESTS)
            assert done.returncode == 1, f"nothing notices {rule}"
        rule["expr"] = right


def test_what_the_endpoint_counts_is_what_they_read(folder: Path) -> None:
    metrics = Metrics()
    held = json.loads((folder / monitoring.OBJECTIVES).read_text())["latency"]
    objectives = {part: each["seconds"] for part, each in held.items()}
    Series(metrics, "r", "v", ["a"], objectives).error(500)
    exposed = generate_latest(metrics.registry).decode()
    known = set(re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE)) | {
        name.removesuffix(suffix) for name in re.findall(r"^(slimline_\w+)", exposed, re.MULTILINE)
        for suffix in ("_bucket", "_count", "_sum", "")
    }  # fmt: skip
    text = " ".join(rule["expr"] for rule in rules_of(folder))
    read = {re.sub(r"_(bucket|count)$", "", name) for name in re.findall(r"\bslimline_\w+", text)}
    assert read <= known | set(METRICS)
    asked = set(re.findall(r'part="(\w+)", le="([^"]+)"', text))
    assert {part: float(bound) for part, bound in asked} == objectives
    assert asked <= {(part, bound) for bound, part in re.findall(r'le="([^"]+)",part="(\w+)"', exposed)}


def test_every_signal_has_an_alert_and_every_alert_its_signal(
    folder: Path, watched_releases: tuple[Path, Path]
) -> None:
    """Traffic is counted by Prometheus itself, so that silence is noticed without the monitor."""
    release = watched_releases[0]
    made = signals.make(watched.read(manifest.digest(release), "v", shadow=False, release=release, chosen=None))
    assert len(made) == len(signals.SIGNALS), "or some have nothing to go by here"
    assert {signal.name for signal in made} == set(get_args(params.Signal))
    text = " ".join(rule["expr"] for rule in rules_of(folder) if "alert" in rule)
    asked = set(re.findall(r'signal="(\w+)"', text))
    assert asked == {signal.name for signal in made} - {"traffic"}
    named = {rule["labels"]["signal"] for rule in rules_of(folder) if "signal" in rule.get("labels", {})}
    assert named <= asked


def test_an_alert_carries_its_runbook_and_says_who_is_to_blame(folder: Path) -> None:
    for rule in rules_of(folder):
        if "alert" in rule:
            page = (ROOT / "docs" / "runbooks" / f"{rule['alert']}.md").read_text()
            assert "runbook_url" not in rule["annotations"], "a path is no URL"
            assert page == f"# {rule['alert']}\n\n{rule['annotations']['runbook']}\n"
            assert rule["labels"]["severity"] in {"page", "ticket"}
            watched = "signal" in rule["labels"] or "state:max" in rule["expr"]
            assert watched == ("slimline_blame_info" in rule["annotations"].get("blame", ""))


def test_an_alert_links_to_its_runbook_where_runbooks_have_a_url(make: Any, tmp_path: Path) -> None:
    make(tmp_path, {"runbooks": "https://git.example.org/runbooks/"})
    for rule in rules_of(tmp_path):
        if "alert" in rule:
            assert rule["annotations"]["runbook_url"] == f"https://git.example.org/runbooks/{rule['alert']}.md"
            assert "runbook" not in rule["annotations"]


def test_a_verdict_is_told_as_urgently_as_what_it_is_about(folder: Path) -> None:
    told: dict[str, set[str]] = {"page": set(), "ticket": set()}
    asked: dict[str, set[str]] = {"page": set(), "ticket": set()}
    for rule in rules_of(folder):
        if rule.get("alert") == "SlimlineBlamed":
            told[rule["labels"]["severity"]] |= set(re.findall(r'signal=~"([^"]+)"', rule["expr"])[0].split("|"))
        elif "alert" in rule:
            asked[rule["labels"]["severity"]] |= set(re.findall(r'state:max\{signal="(\w+)"', rule["expr"]))
    assert told == {severity: signals - set(UNBLAMED) for severity, signals in asked.items()}


def test_an_objective_that_is_not_set_makes_no_alert(make: Any, tmp_path: Path) -> None:
    held = make(tmp_path, {})
    assert {*rules.names(), None} == {rule.get("alert") for rule in rules_of(tmp_path)}, "all are there by default"
    monitoring.write(tmp_path, held | {"latency": {}}, "fashion-mnist")
    names = {rule.get("alert") for rule in rules_of(tmp_path)}
    assert {*rules.names(), None} - names == {"SlimlineLatencyBurn", "SlimlineTritonQueue"}


@pytest.mark.parametrize(
    ("share", "limits"), [(0.99, ["0.5", "0.144", "0.06", "0.03", "0.01"]), (0.9, ["0.5", "0.5", "0.5", "0.3", "0.1"])]
)
def test_burn_rates_never_wait_for_more_than_half(make: Any, tmp_path: Path, share: float, limits: list[str]) -> None:
    make(tmp_path, {"latency_share": share})
    burns = [rule["expr"] for rule in rules_of(tmp_path) if rule.get("alert") == "SlimlineLatencyBurn"]
    assert [re.findall(r"> ([\d.]+)", each)[0] for each in burns] == limits
