"""What the endpoint is told: a typed record, read from the environment (SLIMLINE_…)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from slimline.endpoint.limits import Limits
from slimline.errors import ParamsError, near_miss
from slimline.events import DEFAULT_URL

PREFIX = "SLIMLINE_"
RUNTIMES = "SLIMLINE_TRITON"  # the variable of the runtime triton, which reads it itself
MODES = ("none", "outputs", "sampled")


@dataclass(frozen=True)
class Settings:
    """Each field is an environment variable: ``release`` is SLIMLINE_RELEASE. The limits are flat among them."""

    release: Path = Path("release")  # a release, or a deployment folder whose current pointer is followed
    variants: str = ""  # JSON, or the path of a JSON file: {"canary": {"release": "path", "weight": 5}}
    runtime: str = "auto"
    workers: int = 1  # processes, when BentoML runs them
    threads: int = 0  # 0: as the release was measured
    max_batch: int = 64
    event_store: str = DEFAULT_URL  # an SQLAlchemy URL; empty: nothing is recorded
    retention_days: float = 90.0  # 0: for ever
    sample: float = 0.01  # the share of requests that every stage of the chain is asked about, behind their backs
    inputs: str = "outputs"  # of those: none are sampled, outputs are kept, or inputs too (sampled)
    tokens: str = field(default="", repr=False)
    tokens_file: str = ""
    reload_seconds: float = 2.0
    drain_seconds: float = 0.0
    trust: str = ""  # module:Name of preprocess ops that a release may run, separated by commas
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.inputs not in MODES:
            raise ParamsError(f"{PREFIX}INPUTS: {self.inputs!r}, expected one of {', '.join(MODES)}")
        if not 0 <= self.sample <= 1:
            raise ParamsError(f"{PREFIX}SAMPLE: {self.sample}, expected a share from 0 to 1")


Record = TypeVar("Record")


def from_environment(
    environment: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings in ``environment`` (os.environ). Raises ParamsError naming the variable."""
    values = {**(defaults or {}), **(os.environ if environment is None else environment)}
    known = _names(Settings)
    for name in values:
        if name.startswith(PREFIX) and not name.startswith(RUNTIMES) and name not in known:
            raise ParamsError(f"{name}: no such setting.{near_miss(name, sorted(known))} docs/serving.md lists them")
    return _read(Settings, values)


def origin(release: Path) -> str:
    """Return how an error on ``release`` begins: with SLIMLINE_RELEASE, if that named it."""
    name = f"{PREFIX}RELEASE"
    return f"{name}: " if name in os.environ and Path(os.environ[name]) == release else ""


def _names(record: Any) -> set[str]:
    hints = get_type_hints(record)
    names = set()
    for each in fields(record):
        kind = hints[each.name]
        names |= _names(kind) if is_dataclass(kind) else {PREFIX + each.name.upper()}
    return names


def _read(record: type[Record], values: Mapping[str, str]) -> Record:
    hints = get_type_hints(record)
    given: dict[str, Any] = {}
    for each in fields(record):  # type: ignore[arg-type]
        kind, name = hints[each.name], PREFIX + each.name.upper()
        if is_dataclass(kind):
            given[each.name] = _read(kind, values)  # type: ignore[arg-type]
        elif name in values:
            try:
                given[each.name] = kind(values[name])
            except ValueError:
                raise ParamsError(f"{name}: {values[name]!r} is no {kind.__name__}") from None
            if kind in {int, float} and given[each.name] < 0:
                raise ParamsError(f"{name}: {values[name]}, expected 0 or more")
    return record(**given)
