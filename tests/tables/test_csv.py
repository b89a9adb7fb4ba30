"""CSV and TSV as users have them: long values, semicolons, a line that says what separates, other encodings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slimline import tables
from slimline.errors import DataError


def test_a_value_may_be_a_whole_book(tmp_path: Path) -> None:
    long = "word " * 60_000
    path = tmp_path / "t.csv"
    path.write_text(f'text,label\n"{long}",a\nshort,b\n')
    ((columns, _),) = tables.read(path).batches(10)
    assert columns["text"] == [long, "short"]


GERMAN = {
    "semicolons": (b'text;label\na goal;sport\n"a, b; c";money\n', ["a goal", "a, b; c"]),
    "Excel": ('\ufeffGröße;label\r\nein Tor;sport\r\n"a\r\nb";money\r\n'.encode(), ["ein Tor", "a\r\nb"]),
    "quoted": (b'"a, text";"label"\na goal;sport\n"a ""b""";money\n', ["a goal", 'a "b"']),
    "quoted, a BOM": (b'\xef\xbb\xbf"a, text";"label"\na goal;sport\nb;money\n', ["a goal", "b"]),
}


@pytest.mark.parametrize("case", GERMAN)
def test_semicolons_are_found_in_the_header(tmp_path: Path, case: str) -> None:
    content, expected = GERMAN[case]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    table = tables.read(path)
    ((columns, _),) = table.batches(10)
    assert list(columns[table.names[0]]) == expected
    assert columns["label"] == ["sport", "money"]


def test_a_comma_in_the_header_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a;b,"label"\n1;2,x\n')
    assert tables.read(path).names == ["a;b", "label"]


@pytest.mark.parametrize(
    ("first", "mark"),
    [(b"sep=;", b";"), (b"\xef\xbb\xbfsep=;", b";"), (b'"sep=,"', b","), (b"SEP=|", b"|"), (b"sep=\t", b"\t")],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_first_line_may_say_what_separates(tmp_path: Path, first: bytes, mark: bytes, suffix: str) -> None:
    """Excel reads such a line, and never takes it for a header."""
    path = tmp_path / f"t{suffix}"
    lines = [first, b"text%slabel" % mark, b'"a, b; c"%smoney' % mark]
    path.write_bytes(b"".join(line + b"\r\n" for line in lines))
    table = tables.read(path)
    assert table.names == ["text", "label"]
    assert list(table.batches(10)) == [({"text": ["a, b; c"], "label": ["money"]}, path.stat().st_size)]
    assert table.decimal_commas == (mark == b";")
    path.write_bytes(path.read_bytes() + b"alone\r\n")
    with pytest.raises(DataError, match=r"line 4: 1 values, the header has 2"):
        list(table.batches(10))


def test_lines_are_counted_behind_the_one_that_says_what_separates(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\na;a\n")
    with pytest.raises(DataError, match=r"t\.csv: line 2: column 'a' stands there twice"):
        tables.read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "line", "encoding"),
    [
        ("text;label\nGröße;a\n".encode("cp1252"), 2, "WINDOWS-1252"),
        ("text;label\nTor;a\n".encode("utf-16"), 1, "UTF-16"),
    ],
    ids=["Windows-1252", "UTF-16"],
)
def test_other_encodings_are_told_with_the_command_that_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, line: int, encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("my t.csv")
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(tables.read(path).batches(10))
    why = rf"my t\.csv: line {line}: not UTF-8 \(invalid start byte at byte \d\); was it saved as {encoding}\? "
    convert = rf"iconv -f {encoding} -t UTF-8 'my t\.csv' > 'my t\.utf8\.csv'"
    assert re.fullmatch(why + convert, str(caught.value))
