"""The example package: a third party's own task, model, method and metric go through the whole chain."""

from __future__ import annotations

import shutil
from pathlib import Path

from .conftest import STAGES, lay_out

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


def test_a_third_partys_plug_ins_run_the_whole_chain(tmp_path: Path) -> None:
    project = lay_out(tmp_path / "p")
    shutil.copy(PLUGIN / "params.yaml", project.root / "params.yaml")
    project.run("slimline", "check")
    assert [name for name in project.repro() if name in STAGES] == list(STAGES)
    listed = project.run("slimline", "plugins").stdout
    assert "slimline-wine" in listed
    card = project.json("release/card.json")
    assert card["last"] == "factorize"
    assert "balanced_accuracy" in str(card["benchmark"])
