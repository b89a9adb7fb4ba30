"""Every layer has its picture, and the marks of a quantizer's range stand where the range ends."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from slimline import manifest
from slimline.report import distributions

from .project import Project

MADE = ["prune", "quantize", "factorize"]
BRACKET = re.compile(r'<path class="r" d="M[\d.]+ \d+H([\d.]+)V')


def pictures(pages: tuple[str, str], stage: str) -> dict[str, str]:
    """Return {what it shows: svg} of a stage's panels: ``weights of 3``, ``inputs of 3``."""
    section = pages[0].split("<h2>Distributions</h2>")[1].split("<h2>")[0]
    (own,) = (each for each in section.split("<details")[1:] if f"<summary>{stage}: " in each)
    found = re.findall(r'(<svg role="img" aria-label="([^:]*): .*?</svg>)', own)
    assert len(found) == own.count("<svg")
    return {label: svg for svg, label in found}


def quantizers(chain: Project, stage: str) -> dict[str, dict[str, Any] | None]:
    """Return {what is shown: its quantizer, if any} by layers.json."""
    found = {}
    for layer in manifest.read_json(chain.root / "exports" / stage / "layers.json")["layers"]:
        if "values" in layer:
            found[f"weights of {layer['name']}"] = layer.get("quantizer")
        (given,) = layer["inputs"]
        found[f"inputs of {layer['name']}"] = given["quantizer"]
    return found


def value(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("stage", MADE)
def test_each_layer_has_one_picture_of_its_weights_and_one_of_its_inputs(
    stage: str, pages: tuple[str, str], chain: Project
) -> None:
    assert pictures(pages, stage).keys() == quantizers(chain, stage).keys()


@pytest.mark.parametrize("stage", MADE)
def test_the_marks_stand_where_the_quantizers_range_ends(stage: str, pages: tuple[str, str], chain: Project) -> None:
    drawn = pictures(pages, stage)
    inside = 0
    for shown, quantizer in quantizers(chain, stage).items():
        svg = drawn[shown]
        assert svg.count('class="r"') == (2 if quantizer else 0), shown
        ticks = re.findall(r'<text x="([\d.]+)"[^>]*>([^<]*)<', svg)
        unit, start = np.polyfit(*zip(*((float(x), value(text)) for x, text in ticks), strict=True), 1)
        brackets = [unit * float(x) + start for x in BRACKET.findall(svg)]
        for end in brackets:
            assert quantizer is not None
            assert min(abs(end - quantizer[side]) for side in ("low", "high")) < unit, shown
        inside += len(brackets)
    assert bool(inside) == (stage != "prune")


def test_what_changed_is_outlined_as_it_was(pages: tuple[str, str]) -> None:
    assert all('class="b"' in svg for what, svg in pictures(pages, "prune").items() if what.startswith("weights"))
    factorized = pictures(pages, "factorize")
    assert 'class="b"' in factorized["inputs of 3.0"], "what its layer read"
    assert 'class="b"' not in factorized["inputs of 3.1"], "made by the factor before it"


def test_numbers_stand_under_each_picture(chain: Project) -> None:
    galleries = distributions.galleries(chain.study())
    assert [each.stage for each in galleries] == MADE
    panel = next(each for each in galleries[1].weights if each.title == "3")
    quantizer = quantizers(chain, "quantize")["weights of 3"]
    assert quantizer is not None
    ends = [abs(value(each)) for each in re.findall(r"[−\d.]+", panel.notes[0].partition(", ")[2])]
    assert panel.notes[0].startswith("int8 per channel, ")
    assert ends == pytest.approx([-quantizer["low"], quantizer["high"]][: len(ends)], rel=0.01)
    assert panel.notes[1].startswith("288 weights, ")


def test_where_nothing_changed_nothing_is_drawn(chain: Project) -> None:
    study = chain.study()
    study = replace(study, layers={**study.layers, "factorize": study.layers["quantize"]})
    assert [each.stage for each in distributions.galleries(study)] == ["prune", "quantize"]
