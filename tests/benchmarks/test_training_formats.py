"""A step of training in several formats: which are timed, and what the page says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from slimline import manifest


def test_images_are_timed_in_both_layouts_and_the_page_keeps_the_plain_one_apart(tmp_path: Path) -> None:
    import training_formats

    from tables import training

    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

    steps = training_formats.formats(make, torch.randn(4, 3, 8, 8))
    names = ["float32", "bfloat16", "float32, channels last", "bfloat16, channels last"]
    assert list(steps) == names
    found = training_formats.measure(steps, 2)
    assert found["float32"]["speedup"] == pytest.approx(1.0)
    (tmp_path / "metrics").mkdir()
    found["float32"]["step_ms"] = 1234.0
    texts = {each: found[each] for each in names[:2]}
    manifest.write_json(tmp_path / "metrics/training_formats.json", {"models": {"net": found, "texts": texts}})
    head, _, net, of_texts = training.training_formats(tmp_path).splitlines()
    assert head == "| a step | float32, ms | bfloat16 | bfloat16, channels last | float32, channels last |"
    assert net.startswith("| net | 1,234 | ")
    assert net.count("×") == 3
    assert of_texts.endswith(" |  |  |")
