"""What the labels of a user's table are: one of several, any of several, or a number; found, or named by options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import DataError, ParamsError
from slimline.own_data import labelled_rows
from slimline.project import own_data
from slimline.tasks.text import text
from tests.encoders import texts, write_encoder, write_table


@pytest.mark.parametrize(
    ("labels", "value", "position"),
    [
        (["1.0", "2.0", "3.0"], "1", 0),
        (["-1", "0.5", "1.5"], "1.50", 2),
        (["b", "a"], "1", 1),
        (["b", "a"], "0.0", 0),
        (["2", "1"], 1, 1),
    ],
)
def test_a_whole_number_is_a_position_where_no_label_is_a_number(
    tmp_path: Path, labels: list[str], value: Any, position: int
) -> None:
    assert text(data="t.csv", tokenizer=str(write_encoder(tmp_path)), labels=labels).target(value) == position


def test_numbers_of_labels_are_read_once_not_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    task = text(data="t.csv", tokenizer="m", labels=[f"{at}.0" for at in range(50)])
    seen: list[str] = []
    number = labelled_rows.number
    monkeypatch.setattr(labelled_rows, "number", lambda each: (seen.append(each), number(each))[1])
    assert [task.target(str(at)) for at in range(50)] == [*range(50)]
    assert len(seen) == 100


def test_a_number_that_no_label_is_isnt_a_position(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown label '2'"):
        text(data="t.csv", tokenizer=str(write_encoder(tmp_path)), labels=["-1", "0.5", "1.5"]).target("2")


@pytest.mark.parametrize(
    ("labels", "answer", "names"),
    [
        (["a", "b"], "one", ["a", "b"]),
        (["10", "9", "2"], "one", ["2", "9", "10"]),
        (["a,b", "a", "b,c", "c"], "many", ["a", "b", "c"]),
        ([f"{number / 7:.3f}" for number in range(60)], "number", []),
    ],
)
def test_the_kind_of_answer_is_found(tmp_path: Path, labels: list[str], answer: str, names: list[str]) -> None:
    rows = [(text, labels[at % len(labels)]) for at, (text, _) in enumerate(texts(60))]
    found = own_data.describe(write_table(tmp_path / "t.csv", rows))
    assert (found.answer, found.labels) == (answer, names)


def described(path: Path, labels: list[str], **columns: Any) -> own_data.Described:
    """Return what init finds in a table of texts with these labels, over and over."""
    rows = [(text, labels[at % len(labels)]) for at, (text, _) in enumerate(texts(60))]
    return own_data.describe(write_table(path, rows), own_data.Columns(**columns))


@pytest.mark.parametrize(
    ("labels", "columns", "separator"),
    [
        (["a;b", "a", "b;c", "c"], {}, ";"),
        (["a|b", "a", "b | c", "c"], {}, "|"),
        (["a;b", "c"], {"separator": ";"}, ";"),
        (["a;b", "c"], {"answer": "many"}, ";"),
        (["a/b", "a", "b/c", "c"], {"separator": "/"}, "/"),
        (["['a', 'b']", "['c']", "[]"], {}, ","),
        (['["a", "b"]', "['c']"], {}, ","),
    ],
)
def test_several_labels_in_a_cell_are_found_or_named(
    tmp_path: Path, labels: list[str], columns: dict[str, Any], separator: str
) -> None:
    found = described(tmp_path / "t.csv", labels, **columns)
    assert (found.answer, found.labels, found.separator) == ("many", ["a", "b", "c"], separator)


@pytest.mark.parametrize(
    ("labels", "columns", "message"),
    [
        (
            ["a,b;c", "a,b", "c", "b;c", "a", "b"],
            {},
            r"t\.csv: column 'label': ',' or ';' between labels\? Name it: --s",
        ),
        (
            ["['a', 'b']", "['c', 'a'"],
            {},
            r"""t\.csv: rows 2, 4, 6 and 27 more: column 'label': "\['c', 'a'" is no list of labels; \[""",
        ),
        (["a", "b"], {"separator": ";"}, r"t\.csv: column 'label': no row has ';', which --separator says"),
        (
            ["[1, 0, 0]", "[0, 1, 1]", "[0, 0, 0]"],
            {},
            r"t\.csv: rows 1, 4, 7 and 17 more: column 'label': '\[1, 0, 0\]' has a 0 or 1 for each label; write",
        ),
        (["[1.0, 0.0]", "[0.0, 1.0]"], {}, r"t\.csv: rows 1, 3, 5 and 27 more: .* has a 0 or 1 for each label"),
        (
            ["1", "good"],
            {"answer": "number"},
            r"t\.csv: rows 2, 4, 6 and 27 more: column 'label': 'good' is no number, and --answer asks",
        ),
    ],
)
def test_labels_that_do_not_fit_are_told(
    tmp_path: Path, labels: list[str], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        described(tmp_path / "t.csv", labels, **columns)
    assert "\n" not in str(caught.value)


WHOLE, FRACTIONS = [str(at) for at in range(29)], [f"{at / 4}" for at in range(29)]


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        pytest.param([*map(str, range(59))], "1,200", id="distinct in all rows"),
        pytest.param([*map(str, range(59))], "nan", id="distinct and nan"),
        pytest.param(WHOLE, "n/a", id="a sign for what is missing"),
        pytest.param(WHOLE, "NaN", id="not a number"),
        pytest.param(FRACTIONS, "four", id="fractions"),
    ],
)
def test_one_wrong_cell_among_numbers_is_named(tmp_path: Path, labels: list[str], wrong: str) -> None:
    cells = [*labels[:7], wrong, *labels[7:]]
    rows = "row 8" if len(cells) == 60 else "rows 8 and 38"
    message = (
        rf"t\.csv: {rows}: column 'label': '{wrong}' is no number, and {len(labels)} of {len(cells)} .*--answer num"
    )
    with pytest.raises(DataError, match=message) as caught:
        described(tmp_path / "t.csv", cells)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelt", ["{},43 €", "€{}", "{}.5%", "$ 1,{}.00"])
def test_numbers_with_a_sign_are_told(tmp_path: Path, spelt: str) -> None:
    """Where the decimals are behind a comma, prices were taken for two labels each."""
    cells = [spelt.format(at) for at in range(100, 160)]
    sign = next(each for each in spelt if each in "€%$")
    with pytest.raises(
        DataError, match=r"t\.csv: row 1: column 'label': .* \(and 59 more likewise\) is a number"
    ) as caught:
        described(tmp_path / "t.csv", cells)
    assert str(caught.value).endswith(f"with {sign!r}; write numbers alone")


def test_labels_with_a_sign_stay_labels(tmp_path: Path) -> None:
    assert described(tmp_path / "t.csv", ["under 10 €", "over 10 €"]).labels == ["over 10 €", "under 10 €"]
    assert described(tmp_path / "t.csv", ["10%", "20%"]).labels == ["10%", "20%"]


@pytest.mark.parametrize(
    ("at", "cell", "message"),
    [
        ([2], "", r"row 3: column 'label': empty; fill"),
        ([2, 16], "", r"rows 3 and 17: column 'label': empty; fill"),
        ([2, 16, 39, 40, 41], "", r"rows 3, 17, 40 and 2 more: column 'label': empty; fill"),
        ([2, 16], "n/a", r"rows 3 and 17: column 'label': 'n/a' is no number, and 58 of 59 distinct"),
    ],
)
def test_all_rows_of_a_mistake_are_told(tmp_path: Path, at: list[int], cell: str, message: str) -> None:
    cells = [cell if each in at else f"{each}" for each in range(60)]
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        described(tmp_path / "t.csv", cells)


def test_numbers_and_a_word_may_be_labels(tmp_path: Path) -> None:
    found = described(tmp_path / "t.csv", [*WHOLE, "other"])
    assert (found.answer, len(found.labels)) == ("one", 30)
    assert described(tmp_path / "t.csv", [*FRACTIONS, "other"], answer="one").answer == "one"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": "numbers"}, "--answer: 'numbers' is not one of one, many, number. Did you mean 'number'?"),
        ({"answer": "one", "separator": ";"}, "--separator: ';': it stands between labels, where a row has many"),
        ({"text": ("text", "text")}, "--text: one column, or two for pairs, is expected, found text, text"),
        ({"text": ("text", "a", "b")}, "--text: one column, or two for pairs, is expected, found text, a, b"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        described(tmp_path / "t.csv", ["a", "b"], **columns)


@pytest.mark.parametrize("labels", [["[a]", "[b]"], ["a;b", "c"]])
def test_one_label_stays_one(tmp_path: Path, labels: list[str]) -> None:
    found = described(tmp_path / "t.csv", labels)
    assert (found.answer, found.labels) == ("one", labels)


@pytest.mark.parametrize(("labels", "tolerance"), [(list("12345"), 0.5), (["0", "100"], 10.0), (["0.5", "1.5"], 0.1)])
def test_stars_can_be_numbers(tmp_path: Path, labels: list[str], tolerance: float) -> None:
    found = described(tmp_path / "t.csv", labels, answer="number")
    assert (found.answer, found.labels, found.tolerance) == ("number", [], tolerance)


@pytest.mark.parametrize(
    ("labels", "answer", "found"),
    [(["3,5", "4", "1,0"], None, "number"), (["3,5", "4", "1,0"], "one", "one"), (["3,5", "4", "3"], "many", "many")],
)
def test_semicolons_between_columns_make_commas_those_of_numbers(
    tmp_path: Path, labels: list[str], answer: str | None, found: str
) -> None:
    rows = "".join(f"{text};{labels[at % 3]}\r\n" for at, (text, _) in enumerate(texts(60)))
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + f"text;label\r\n{rows}".encode())
    described = own_data.describe(tmp_path / "t.csv", own_data.Columns(answer=answer))
    assert described.answer == found
    assert described.labels == {"number": [], "one": ["1,0", "3,5", "4"], "many": ["3", "4", "5"]}[found]
    assert described.tolerance == (0.3 if found == "number" else 0)


@pytest.mark.parametrize(("name", "row"), [("t.tsv", "text {0}\t0,{0:02}\n"), ("t.csv", 'text {0},"0,{0:02}"\n')])
def test_where_commas_may_be_either_it_is_asked(tmp_path: Path, name: str, row: str) -> None:
    data = tmp_path / name
    header = "text\tlabel\n" if name == "t.tsv" else "text,label\n"
    data.write_text(header + "".join(row.format(number) for number in range(60)))
    with pytest.raises(ParamsError, match=r"row 1: column 'label': '0,00' is a number with a decimal comma, or two"):
        own_data.describe(data)
    assert own_data.describe(data, own_data.Columns(answer="number")).answer == "number"
    assert "59" in own_data.describe(data, own_data.Columns(answer="many")).labels


def test_an_empty_cell_among_decimal_commas_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text;label\na;3,5\nb;\nc;4,5\n")
    with pytest.raises(DataError, match=r"t\.csv: row 2: column 'label': empty"):
        own_data.describe(tmp_path / "t.csv")
