"""What production is held to: params.yaml's ``monitor`` and ``budget`` with the numbers of the release's benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimline.params import Monitor

FORMAT = 1
AROUND = 0.1  # seconds of a probe's request for what is around the model call: JSON, the network
SLACK = 2.0  # what a request's model call may take, over the benchmark's p99 at the largest batch


def objectives(document: Mapping[str, Any], measured: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return release/monitoring/objectives.json for a release whose last stage is ``stage``.

    ``floors`` {metric: the teacher's less the budget's drop}, of one that is better lower the most it may be, and
    ``primary`` the task's own metric; ``latency`` {part: {"seconds", "share"}}, where
    ``seconds`` is a bound of the endpoint's histogram, that alert rules count at; the rest is as in params.yaml.
    """
    settings = Monitor.model_validate(document.get("monitor") or {})
    teacher, own = measured["stages"]["teacher"], measured["stages"][stage]
    drops = (document.get("budget") or {}).get("max_drop") or {}
    lower = {*teacher.get("lower_is_better", ()), *own.get("lower_is_better", ())}
    return {
        "format": FORMAT,
        "primary": measured.get("primary", "accuracy"),
        "floors": {
            metric: teacher[metric] - limit * (-1 if metric in lower else 1)
            for metric, limit in drops.items()
            if metric in teacher
        },
        "agreement": own["agreement"],
        "latency_ms": own["latency_ms"],
        "threads": own["threads"],
        "latency": {
            part: {"seconds": seconds, "share": settings.latency_share}
            for part, seconds in latency(settings, own["latency_ms"]).items()
        },
        "error_share": settings.error_share,
        "min_coverage": settings.min_coverage,
        "label_delay_hours": settings.label_delay_hours,
        "idle_minutes": settings.idle_minutes,
        "runbooks": settings.runbooks,
        "undo": {"policy": settings.undo.policy, "on": list(settings.undo.on)},
    }


def latency(settings: Monitor, measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return {part of a request: seconds}: those of params.yaml, or for ``predict`` twice what the benchmark measured.

    They are rounded to four digits, since each is the bound of a histogram, which people read.

    ``measured`` {batch size: {"p50", "p95", "p99"}} in milliseconds, of the stage that is served.
    """
    if settings.latency_ms:
        return {part: _rounded(milliseconds / 1e3) for part, milliseconds in settings.latency_ms.items()}
    if not measured:
        return {}
    largest = measured[max(measured, key=int)]
    return {"predict": _rounded(SLACK * largest[max(largest, key=lambda name: int(name[1:]))] / 1e3)}


def whole(settings: Monitor, measured: Mapping[str, Mapping[str, float]]) -> float | None:
    """Return the seconds that a whole request of one row may take, as a probe sees it.

    That is params.yaml's ``total``, or a tenth of a second beside its ``predict``, else the benchmark's.
    """
    held = {**latency(Monitor(), measured), **latency(settings, measured)}
    return held["total"] if "total" in held else held["predict"] + AROUND if "predict" in held else None


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")
