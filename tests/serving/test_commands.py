"""Deployment files are true to the code: commands, settings, pages, how long an end takes."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import Any

import pytest
from typer.exceptions import TyperException

from slimline.events import EventWriter
from tests.serving.manifests import ALL_PODS, PODS, SERVING, containers, load, parsed, pod


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["probe"], "MissingParameter"),
        (["probe", "http://x", "--every", "soon"], "BadParameter"),
        (["probe", "http://x", "--port", "70000"], "BadParameter"),
        (["monitor", "--token-fil", "x"], "NoSuchOption"),
    ],
    ids=["no argument", "no number", "out of range", "misspelt"],
)
def test_a_command_line_that_the_command_would_refuse_is_found(arguments: list[str], error: str) -> None:
    with pytest.raises(TyperException) as caught:
        parsed(arguments)
    assert type(caught.value).__name__ == error


def image_command() -> list[str]:
    found = re.search(r"^CMD (\[.*\])$", (SERVING / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    return command


def test_the_release_is_fetched_by_a_real_command() -> None:
    for name in ("deployment", "monitor", "probe"):
        parsed(pod(name)["initContainers"][0]["args"])


def test_it_is_served_and_watched_by_real_commands() -> None:
    services = load("compose.yaml")["services"]
    composed = [services[name]["command"] for name in ("monitor", "probe")]
    assert [each[0] for each in composed] == ["monitor", "probe"]
    for arguments in (image_command(), *composed, *(pod(name)["containers"][0]["args"] for name in ALL_PODS)):
        parsed(arguments)


def test_every_setting_is_one_of_the_endpoints() -> None:
    settings = importlib.import_module("slimline.endpoint.settings")
    names = [env["name"] for name in ALL_PODS for each in containers(name) for env in each.get("env", [])]
    names += load("compose.yaml")["services"]["endpoint"]["environment"]
    given = {name: "10" for name in names if name.startswith("SLIMLINE_")}
    assert given
    settings.from_environment(given)


def test_every_probe_is_a_page_of_what_it_asks() -> None:
    openapi = importlib.import_module("slimline.endpoint.openapi")
    pages = json.dumps(openapi.document()) if not hasattr(openapi, "PATHS") else json.dumps(openapi.PATHS)
    for name in PODS:
        for each in pod(name)["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                assert f'"{each[probe]["httpGet"]["path"]}"' in pages
    running = importlib.import_module("slimline.monitor.running")
    for each in pod("monitor")["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert each[probe]["httpGet"]["path"] in running.pages(None)
    for each in pod("probe")["containers"]:  # it has no other page: tests/monitor/test_probe.py gets it
        assert {each[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {"/metrics"}


def drain_seconds(environment: Any) -> float:
    given = {each["name"]: each.get("value") for each in environment} if isinstance(environment, list) else environment
    return float(given.get("SLIMLINE_DRAIN_SECONDS", 0))


def test_nobody_is_killed_before_its_end_is_over() -> None:
    """Draining, requests under way, what runs behind them, the queue of events and its writer."""
    endpoint = [importlib.import_module(f"slimline.endpoint.{name}") for name in ("server", "core", "recording")]
    writer = inspect.signature(EventWriter).parameters["timeout"].default
    ending = endpoint[0].FINISH_SECONDS + endpoint[1].BACKGROUND_SECONDS + endpoint[2].FLUSH_SECONDS + writer
    deployment, compose = pod("deployment"), load("compose.yaml")["services"]["endpoint"]
    drain = drain_seconds(deployment["containers"][0]["env"])
    assert drain + ending < deployment["terminationGracePeriodSeconds"]
    kserve = pod("inference-service")
    assert drain_seconds(kserve["containers"][0]["env"]) + ending < kserve["terminationGracePeriodSeconds"]
    assert drain_seconds(compose["environment"]) + ending < float(compose["stop_grace_period"].removesuffix("s"))
