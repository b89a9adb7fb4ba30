"""``release/monitoring/``: what Prometheus, Alertmanager, Grafana and Kubernetes read, made when a release is built.

The same objectives give the same bytes. The dashboard is made with a library of the extra ``train``, which is there
where releases are built; who deploys a release finds plain files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slimline import manifest

OBJECTIVES = "objectives.json"
RULES = "rules.yml"
RULE_TESTS = "rules_test.yml"
WEBHOOK = "http://localhost:3001/undo"


def write(folder: Path, objectives: Mapping[str, Any], task: str) -> None:
    """Write every file of release/monitoring for a release with these ``objectives`` (objectives.py)."""
    from slimline.monitoring import dashboard, rule_tests, rules, servers

    groups = rules.groups(objectives, objectives["runbooks"])
    manifest.write_json(folder / OBJECTIVES, objectives)
    _yaml(folder / RULES, {"groups": groups}, f"Rules for the releases of {task}; promtool test rules {RULE_TESTS}")
    _yaml(folder / RULE_TESTS, rule_tests.document(objectives, groups, RULES), f"promtool test rules {RULE_TESTS}")
    _yaml(folder / "prometheus.yml", servers.prometheus(RULES), "prometheus --config.file prometheus.yml")
    _yaml(folder / "alertmanager.yml", servers.alertmanager(objectives["undo"], WEBHOOK), "name your receivers here")
    _yaml(folder / "kubernetes.yaml", *servers.kubernetes(groups), "for the Prometheus operator")
    manifest.write_json(folder / "dashboard.json", dashboard.build(objectives, task))


def _yaml(path: Path, *documents: Any) -> None:
    *parts, comment = documents
    text = yaml.safe_dump_all(parts, sort_keys=False, allow_unicode=True, width=10_000)
    manifest.write_text(path, f"# {comment}\n{text}")
