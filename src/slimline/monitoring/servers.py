"""Configuration of Prometheus and Alertmanager, and the same rules as resources of the Prometheus operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENDPOINT, MONITOR, ALERTMANAGER = "localhost:3000", "localhost:3001", "localhost:9093"
JOBS = {"slimline": ENDPOINT, "slimline-monitor": MONITOR}
NAMED = {"triton": "targets/triton*.yml", "slimline-probe": "targets/probe*.yml"}  # there needn't be any
INTERVAL = "5s"
CREDENTIALS = "undo.token"  # beside alertmanager.yml: what `slimline monitor --token-file` reads
NAME = "app.kubernetes.io/name"


def prometheus(rules: str) -> dict[str, Any]:
    """Return prometheus.yml. Tritons and probes are named in files beside it, as NAMED says."""
    scraped: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in JOBS.items()
    ]
    scraped += [{"job_name": job, "file_sd_configs": [{"files": [files]}]} for job, files in NAMED.items()]
    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
        "scrape_configs": scraped,
    }


def alertmanager(undo: Mapping[str, Any], webhook: str) -> dict[str, Any]:
    """Return alertmanager.yml: pages and tickets go to two receivers, still empty, and regressions to ``webhook`` too.

    ``undo`` is params.yaml's section: with the policy ``off`` nothing is sent to the webhook.
    """
    group = ["alertname", "signal", "revision", "variant"]
    acts = undo["policy"] != "off" and bool(undo["on"])
    signals = "|".join(undo["on"])
    route = {
        "receiver": "undo",
        "matchers": ['severity="page"', 'alertname=~"Slimline.*Regressed"', f'signal=~"{signals}"'],
        "continue": True,
        "group_wait": "0s",
        "group_interval": "10s",
        "repeat_interval": "5m",
    }
    receivers: list[dict[str, Any]] = [{"name": "pages"}, {"name": "tickets"}]
    if acts:
        own = {"authorization": {"credentials_file": CREDENTIALS}}
        told = {"url": webhook, "send_resolved": False, "http_config": own}
        receivers.append({"name": "undo", "webhook_configs": [told]})
    page = {"receiver": "pages", "matchers": ['severity="page"']}
    ticket = {"receiver": "tickets", "matchers": ['severity="ticket"'], "group_wait": "5m", "repeat_interval": "24h"}
    return {
        "route": {
            "receiver": "pages",
            "group_by": list(group),
            "group_wait": "10s",
            "group_interval": "1m",
            "repeat_interval": "4h",
            "routes": [*([route] if acts else []), page, ticket],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"'],
                "target_matchers": ['severity="ticket"'],
                "equal": list(group),
            },
            {
                "source_matchers": ['alertname="SlimlineEndpointDown"'],
                "target_matchers": ['alertname="SlimlineNoTraffic"'],
            },
        ],
        "receivers": receivers,
    }


def kubernetes(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a PrometheusRule with the same groups, and a ServiceMonitor each for endpoint, monitor and probe."""
    api = {"apiVersion": "monitoring.coreos.com/v1"}
    rule = {
        **api,
        "kind": "PrometheusRule",
        "metadata": {"name": "slimline", "labels": {NAME: "slimline"}},
        "spec": {"groups": groups},
    }
    watched = [
        {
            **api,
            "kind": "ServiceMonitor",
            "metadata": {"name": job, "labels": {NAME: job}},
            "spec": {
                "jobLabel": NAME,
                "selector": {"matchLabels": {NAME: job}},
                "endpoints": [{"port": "http", "path": "/metrics", "interval": INTERVAL}],
            },
        }
        for job in (*JOBS, "slimline-probe")
    ]
    return [rule, *watched]
