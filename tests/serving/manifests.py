"""The deployment files, and what is asked of them again and again."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_group

from slimline.cli import COMMANDS

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "serving"
RESOURCES = (
    "autoscaler", "deployment", "disruption-budget", "monitor", "monitor-claim", "monitor-service", "probe",
    "probe-service", "service",
)  # fmt: skip
CLUSTERS = ("1.31", "1.37")
PODS = ("deployment", "inference-service")  # of the endpoint
ALL_PODS = (*PODS, "monitor", "probe")


def load(name: str) -> Any:
    return yaml.safe_load((SERVING / name).read_text(encoding="utf-8"))


def pod(name: str) -> dict[str, Any]:
    """Return the pod's specification of a Deployment or the InferenceService."""
    document = load(f"k8s/{name}.yaml")
    found: dict[str, Any] = (
        document["spec"]["template"]["spec"] if document["kind"] == "Deployment" else document["spec"]["predictor"]
    )
    return found


def containers(name: str) -> list[dict[str, Any]]:
    spec = pod(name)
    return [*spec.get("initContainers", []), *spec["containers"]]


def misspelt(document: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy in which the key at ``path`` has one letter more."""
    changed = copy.deepcopy(document)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[f"{path[-1]}x"] = at.pop(path[-1])
    return changed


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return what the command itself makes of its command line; an unknown option or a bad value is an error."""
    app = importlib.import_module(f"slimline.cli.{COMMANDS[arguments[0]]}").app
    app.callback()(lambda: None)
    with get_group(app).commands[arguments[0]].make_context(arguments[0], arguments[1:]) as context:
        return dict(context.params)
