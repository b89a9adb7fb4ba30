"""The tables of layers say what layers.json says, and what each stage did to each layer."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from slimline import manifest
from slimline.params import Configured
from slimline.pipeline import ROOT
from slimline.report import layers
from slimline.report.lineage import Lineage, rank

from .page import Page, number, table
from .project import Project

MADE = ["prune", "quantize", "factorize"]
SHAPES = {
    "prune": {
        "0": "4×1×3×3 (was 8×1×3×3, teacher's 8×1×3×3)",
        "3": "8×4×3×3 (was 16×8×3×3, teacher's 16×8×3×3)",
        "6": "4×8×3×3 (was 8×16×3×3, teacher's 8×16×3×3)",
        "11": "10×16 (was 10×32, teacher's 10×32)",
    },
    "quantize": {"0": "4×1×3×3", "3": "8×4×3×3", "6": "4×8×3×3", "9": "–", "11": "10×16"},
    "factorize": {
        "0": "4×1×3×3",
        "3.0": "2×4×1×1 (was 8×4×3×3)",
        "3.1": "4×2×3×3 (was 8×4×3×3)",
        "3.2": "8×4×1×1 (was 8×4×3×3)",
        "6.0": "4×8×1×1 (was 4×8×3×3)",
        "6.1": "2×4×3×3 (was 4×8×3×3)",
        "6.2": "4×2×1×1 (was 4×8×3×3)",
        "9": "–",
        "11.0": "5×16 (was 10×16)",
        "11.1": "10×5 (was 10×16)",
    },
}
POSITIONS = {"0": 64, "3": 16, "3.0": 64, "6": 16, "11": 1}  # of the output; 3 (of its factors 3.1) has stride 2


def described(chain: Project, stage: str) -> dict[str, Any]:
    found = manifest.read_json(chain.root / "exports" / stage / "layers.json")["layers"]
    return {layer["name"]: layer for layer in found}


def rows_of(pages: tuple[str, str], stage: str) -> dict[str, dict[str, str]]:
    return table(pages[1], f"Layers of {stage}")


def test_each_layer_is_followed_through_the_stages(pages: tuple[str, str]) -> None:
    rows = table(pages[1], "Layer by layer")
    assert list(rows) == ["0", "3", "6", "9", "11"]
    assert [row["teacher"] for row in rows.values()] == ["8×1×3×3", "16×8×3×3", "8×16×3×3", "–", "10×32"]
    assert [row["prune"] for row in rows.values()] == [
        "8→4 out (magnitude: skipped by '0')",
        "16→8 out, 8→4 in, 0%→25% masked",
        "8→4 out, 16→8 in, 0%→25% masked",
        "–",
        "32→16 in, 0%→25% masked",
    ]
    integers = "int8 weights per channel, uint8 inputs"
    assert [row["quantize"] for row in rows.values()] == [
        "new values (linear: skipped by '0')", integers, integers, "uint8 inputs", integers,
    ]  # fmt: skip
    factorized = [row["factorize"] for row in rows.values()]
    assert factorized[0] == (
        "unchanged (svd: stays: not a linear layer or a dense 1×1 convolution; tucker2: stays: skip '0')"
    )
    assert factorized[1].startswith("3 layers of rank 2, 4 (svd: stays: skip '3*'; tucker2: ranks [2, 4]: 0.47× its")
    assert "tucker2: ranks [4, 2]: 0.39× its multiply-adds" in factorized[2]
    assert factorized[3] == "–"
    assert factorized[4].startswith("2 layers of rank 5 (svd: ranks [5]: 0.81× its multiply-adds")


@pytest.mark.parametrize("stage", MADE)
def test_shapes_are_those_of_the_chain(stage: str, pages: tuple[str, str]) -> None:
    rows = rows_of(pages, stage)
    assert {name: row["weights"] for name, row in rows.items() if name != layers.REST} == SHAPES[stage]


@pytest.mark.parametrize("stage", MADE)
def test_multiply_adds_are_those_of_the_shapes(stage: str, pages: tuple[str, str]) -> None:
    rows = {name: row for name, row in rows_of(pages, stage).items() if row["weights"] not in {"", "–"}}
    expected = {}
    for name, row in rows.items():
        weights = math.prod(int(size) for size in SHAPES[stage][name].partition(" ")[0].split("×"))
        expected[name] = weights * POSITIONS.get(name, POSITIONS[name.partition(".")[0]])
        assert number(row["MACs"]) == pytest.approx(expected[name], rel=0.005)
    shares = {name: float(re.findall(r"\(([\d.]+)%\)", row["MACs"])[0]) for name, row in rows.items()}
    total = sum(expected.values())
    assert shares == pytest.approx({name: 100 * macs / total for name, macs in expected.items()}, abs=0.5)


@pytest.mark.parametrize("stage", MADE)
def test_bytes_are_those_of_the_file(stage: str, pages: tuple[str, str], chain: Project) -> None:
    rows, found = rows_of(pages, stage), described(chain, stage)
    before = described(chain, chain.params[stage]["from"])
    for name, layer in found.items():
        if layer["bytes"] is None:
            assert rows[name]["bytes"] == "–"
            continue
        assert number(rows[name]["bytes"]) == pytest.approx(layer["bytes"], rel=0.005)
        was = before[name]["bytes"] if name in before and before[name]["bytes"] != layer["bytes"] else None
        noted = re.findall(r"\(was (.*)\)", rows[name]["bytes"])
        assert [number(each) for each in noted] == pytest.approx([was] if was else [], rel=0.005)
    whole = chain.benchmark["stages"][stage]["bytes"]
    assert sum(number(row["bytes"]) for row in rows.values() if row["bytes"] != "–") == pytest.approx(whole, rel=0.005)


@pytest.mark.parametrize("stage", MADE)
def test_widths_zeros_and_rounding_errors_are_those_of_each_layer(
    stage: str, pages: tuple[str, str], chain: Project
) -> None:
    rows, found = rows_of(pages, stage), described(chain, stage)
    for name, layer in found.items():
        integers, pools = stage != "prune" and name != "0", name == "9"
        widths = "uint8 inputs" if pools else "int8 weights (per channel, uint8 inputs)"
        assert rows[name]["widths"] == (widths if integers else "float32")
        assert (layer["sqnr"] is not None) == integers
        assert rows[name]["SQNR"].partition(" (")[0] == (f"{layer['sqnr']:.1f} dB" if integers else "–")
        if pools:
            assert rows[name]["zeros"] == "–"
            continue
        masked = stage != "factorize" and name != "0"
        assert rows[name]["zeros"].endswith(" (25% masked)") == masked
        assert number(rows[name]["zeros"]) == pytest.approx(layer["zeros"], abs=0.005)


def test_what_a_stage_did_stands_beside_each_layer(pages: tuple[str, str]) -> None:
    did = {stage: rows_of(pages, stage) for stage in MADE}
    assert did["prune"]["3"]["what prune did"] == "16→8 out, 8→4 in, 0%→25% masked"
    assert did["quantize"]["0"]["what quantize did"] == "new values"
    assert did["factorize"]["0"]["what factorize did"] == "unchanged"
    assert did["factorize"]["3.1"]["what factorize did"] == "part 2 of 3 of 3, rank 2, 4"
    assert did["factorize"]["3.1"]["kind"] == "Conv2d 3×3 (stride 2, factor of rank 2, 4)"


def test_the_page_has_the_same_tables(pages: tuple[str, str], chain: Project) -> None:
    study = chain.study()
    tables = [each.table for each in layers.of_stages(study)]
    assert len(tables) == len(MADE)
    followed = layers.chain(study)
    assert followed is not None
    shown = Page(pages[0]).rows
    for each in (followed, *tables):
        assert each.head in shown
        assert all([title, *(cell.text + cell.note for cell in cells)] in shown for title, cells in each.rows)


def test_a_stage_that_changed_nothing_says_whose_layers_it_has(chain: Project) -> None:
    study = chain.study()
    study = replace(study, layers={**study.layers, "factorize": study.layers["quantize"]})
    assert [each.same_as for each in layers.of_stages(study)] == ["", "", "quantize"]


def test_layers_that_went_by_measurement_say_what_they_cost(chain: Project) -> None:
    """Block 3 of the list that the model is went; those behind it moved up by one."""
    study = chain.study()
    section = study.params.compressions["prune"]
    measured = section.model_copy(update={"methods": [Configured.model_validate({"name": "depth", "keep": 1})]})
    kept = [0, 1, 2, *range(4, 12)]
    why = {"3": "gone, 1 of 1: KL 0.25", "6": "stays: KL 0.5"}
    choice = {"kept": {"": kept}, "blocks": {name: {"why": each} for name, each in why.items()}}
    left = [
        {**layer, "name": str(kept.index(int(layer["name"])))} for layer in study.layers[ROOT] if layer["name"] != "3"
    ]
    changed = replace(
        study,
        params=study.params.model_copy(update={"compressions": {**study.params.compressions, "prune": measured}}),
        decisions={"prune": {"depth": choice}},
        layers={ROOT: study.layers[ROOT], "prune": left},
    )
    followed = layers.chain(changed)
    assert followed is not None
    shown = {title: f"{cells[1].text} | {cells[1].note}" for title, cells in followed.rows}
    assert shown == {
        "0": "unchanged | ",
        "3": "gone | depth: gone, 1 of 1: KL 0.25",
        "6": "unchanged | depth: stays: KL 0.5",
        "11": "unchanged | ",
    }


def test_positions_are_those_of_the_entry_that_dropped_them(chain: Project) -> None:
    """Two entries of depth, recorded in another order than they ran, beside a method with such a key too."""
    study = chain.study()
    section = study.params.compressions["prune"]
    twice = [Configured.model_validate({"name": "depth", "keep": keep}) for keep in (11, 10)]
    choices = {
        "another": {"kept": {"": [11]}},
        "depth #2": {"kept": {"": list(range(1, 11))}},
        "depth": {"kept": {"": [0, 1, 2, *range(4, 12)]}},
    }
    compressions = {**study.params.compressions, "prune": section.model_copy(update={"methods": twice})}
    changed = replace(
        study, params=study.params.model_copy(update={"compressions": compressions}), decisions={"prune": choices}
    )
    lineage = Lineage(changed, "prune")
    assert [lineage.name_before(name) for name in ("0", "2", "9")] == ["1", "4", "11"]


def test_the_rank_of_a_table_is_the_width_of_what_is_looked_up() -> None:
    table, matrix = {"kind": "Embedding", "weight": [96, 8]}, {"kind": "Linear", "weight": [32, 8]}
    assert rank([table, matrix]) == "8"
    assert rank([{"kind": "Linear", "weight": [4, 16]}, {"kind": "Linear", "weight": [10, 4]}]) == "4"
