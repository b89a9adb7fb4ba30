"""What ``make bench-attention`` does, on an encoder of one layer, and how the page says it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra hf")


def test_both_products_run_in_integers_and_stand_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import attention

    from slimline import manifest
    from tables import training

    monkeypatch.chdir(tmp_path)
    for name, value in {"SIZE": "tiny", "REPEATS": 1, "BATCH_SIZES": (1,)}.items():
        monkeypatch.setattr(attention, name, value)
    assert training.attention(tmp_path) == ""
    for length in ("16", "8"):
        monkeypatch.setattr(sys, "argv", ["attention", "--lengths", length, "--threads", "1", "--rounds", "2"])
        attention.main()
    measured = manifest.read_json(Path("metrics/attention.json"))
    for more in measured["operators"].values():
        assert more["MatMulIntegerToFloat"] + more["QLinearMatMul"] == 2  # of the one layer
    head, _, *rows = training.attention(tmp_path).splitlines()
    assert head == "| tokens | b1/t1: floats, ms; u8·s8; u8·u8 |"
    assert [row.split(" | ")[0] for row in rows] == ["| 8", "| 16"]
    assert all(row.count("×") == 2 for row in rows)
