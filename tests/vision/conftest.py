"""Networks of timm and torchvision, in the environment of make test-vision."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

INSTALLED = all(importlib.util.find_spec(name) for name in ("timm", "torchvision"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands here, and skip it where timm and torchvision aren't installed."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vision)
            if not INSTALLED:
                item.add_marker(pytest.mark.skip(reason="no timm and torchvision: make test-vision installs them"))
