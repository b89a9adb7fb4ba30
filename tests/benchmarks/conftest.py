"""The benchmarks' own modules, as their scripts find them: by folder."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (BENCHMARKS, BENCHMARKS / "monitoring", BENCHMARKS / "regression"):
        monkeypatch.syspath_prepend(folder)
