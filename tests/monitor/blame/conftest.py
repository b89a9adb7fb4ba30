"""Releases with and without a planted fault, built once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slimline import manifest
from tests.monitor.blame.planted import OVER_PRUNED, Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def good(workshop: Workshop) -> Path:
    """A release without a fault."""
    return workshop.release("good")


@pytest.fixture(scope="session")
def miscalibrated(workshop: Workshop) -> Path:
    """A release whose quantize stage saw images far too dark when its ranges were chosen."""
    return workshop.release("miscalibrated", brightness=0.5)


@pytest.fixture(scope="session")
def over_pruned(workshop: Workshop) -> Path:
    """A release whose prune stage forgot two classes."""
    return workshop.release("over-pruned", without=OVER_PRUNED)


@pytest.fixture(scope="session")
def elsewhere(good: Path, miscalibrated: Path) -> Path:
    """A release whose quantize stage is at fault where it serves alone: when it was made, it answered as a good one."""
    target = good.with_name("elsewhere")
    with manifest.sealed(target) as scratch:
        shutil.copytree(good, scratch, dirs_exist_ok=True)
        (scratch / manifest.MANIFEST).unlink()
        shutil.rmtree(scratch / "chain" / "quantize")
        shutil.copytree(miscalibrated / "chain" / "quantize", scratch / "chain" / "quantize")
    return target


@pytest.fixture
def releases(good: Path, miscalibrated: Path, over_pruned: Path, elsewhere: Path) -> dict[str, Path]:
    return {"good": good, "miscalibrated": miscalibrated, "over_pruned": over_pruned, "elsewhere": elsewhere}
