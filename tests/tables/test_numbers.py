"""Decimal commas and marks between thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline import tables


@pytest.mark.parametrize(
    ("header", "cell", "number"),
    [
        ("text;label", "3,5", "3.5"), ("text;label", "-,5", "-.5"), ("text;label", " 12,0 ", " 12.0 "),
        ("text;label", "3.5", "3.5"), ("text;label", "1,2,3", "1,2,3"), ("text;label", "a,5", "a,5"),
        ("text,label", "3,5", "3.5"), ("text,label", "1,200", "1,200"), ("text,label", "0,200", "0.200"),
        ("text;label", "1,200", "1.200"), ("text;label", "-1.234,5", "-1234.5"),
        ("text;label", "1.234.567,0", "1234567.0"), ("text;label", "1.234.567", "1234567"),
        ("text;label", "1.234", "1.234"), ("text;label", "1.23,5", "1.23,5"),
        ("text;label", "0.234,5", "0.234,5"), ("text,label", "1.234,5", "1234.5"),
        ("text,label", "1.234.567", "1.234.567"), ("text;label", "1.234,567", "1234.567"),
    ],
)  # fmt: skip
def test_a_number_may_have_a_decimal_comma(tmp_path: Path, header: str, cell: str, number: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n")
    assert tables.read(path).number(cell) == number
