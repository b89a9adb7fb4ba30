"""Texts and pairs of texts from every kind of table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slimline import scoring
from slimline.cli import main
from slimline.errors import DataError
from tests.scoring.tables import TEXTS, rows, write_rows
from tests.text_releases import with_pieces


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pairs_are_answered_from_the_kind_of_table_that_they_were_trained_on(
    pair_release: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = [*TEXTS[1:], TEXTS[0]]
    pairs = [list(each) for each in zip(TEXTS, second, strict=True)]
    scoring.score(pair_release, write_rows(tmp_path / "list.jsonl", {"text": pairs}), tmp_path / "list.csv")
    expected = rows(tmp_path / "list.csv")
    trained = write_rows(tmp_path / f"in{suffix}", {"id": list(range(90)), "first": TEXTS, "second": second})
    scoring.score(pair_release, trained, tmp_path / "out.csv")
    other = write_rows(tmp_path / f"other{suffix}", {"b": second, "a": TEXTS})
    named = ["predict", str(pair_release), str(other), str(tmp_path / "named.csv"), "--column", "a", "--column", "b"]
    monkeypatch.setattr(sys, "argv", ["slimline", *named])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    for found in (rows(tmp_path / "out.csv"), rows(tmp_path / "named.csv")):
        assert [found[name] for name in found if name.startswith(("label", "probability"))] == [
            expected[name] for name in expected if name.startswith(("label", "probability"))
        ]
    with pytest.raises(DataError, match=r"none called first, second, text, .*--column, twice for pairs"):
        scoring.score(pair_release, other, tmp_path / "no.csv")
    broken = write_rows(tmp_path / f"broken{suffix}", {"first": TEXTS, "second": [*second[:70], "", *second[71:]]})
    with pytest.raises(DataError, match=rf"broken{suffix}: row 71: column 'second' is empty"):
        scoring.score(pair_release, broken, tmp_path / "no.csv")


def test_a_table_as_german_excel_writes_it_is_answered(text_release: Path, tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "plain.csv", {"id": list(range(90)), "text": TEXTS})
    german = tmp_path / "german.csv"
    german.write_bytes(
        b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\r", b"").replace(b",", b";").replace(b"\n", b"\r\n")
    )
    for source in (plain, german):
        assert scoring.score(text_release, source, tmp_path / f"{source.stem}.out.csv") == 90
    assert (tmp_path / "german.out.csv").read_bytes() == (tmp_path / "plain.out.csv").read_bytes()


def test_more_columns_than_texts_in_a_row_are_refused(text_release: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", {"a": TEXTS, "b": TEXTS})
    with pytest.raises(DataError, match=r"--column: 2 columns, and the model takes 1 a row"):
        scoring.score(text_release, source, tmp_path / "out.csv", column=["a", "b"])


def test_a_mistake_in_raw_texts_names_their_column_and_no_input_of_the_model(
    text_release: Path, tmp_path: Path, resealed: Callable[..., Path]
) -> None:
    other = write_rows(tmp_path / "other.csv", {"id": list(range(90)), "review": TEXTS})
    with pytest.raises(DataError, match=r"other\.csv: no column of texts, none called text, .*; it has id, review: "):
        scoring.score(text_release, other, tmp_path / "out.csv")
    mixed = write_rows(tmp_path / "mixed.jsonl", {"review": [*TEXTS[:70], 7, *TEXTS[71:]]})
    with pytest.raises(DataError, match=r"mixed\.jsonl: row 71: column 'review': int is no text$"):
        scoring.score(text_release, mixed, tmp_path / "out.csv", column="review")
    few = with_pieces(text_release, tmp_path / "few", 4, resealed)
    with pytest.raises(
        DataError, match=r"rows 1, 4, 7 and 27 more: column 'review', as preprocess\.json makes it: holds \d+, expected"
    ):
        scoring.score(few, other, tmp_path / "out.csv", column="review")
