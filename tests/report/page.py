"""A report as its reader has it: elements, pictures, tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects elements, texts and the rows of tables, and fails on a tag that is closed out of turn."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.svg_texts: list[set[str]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "svg":
            self.svg_texts.append(set())
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" in self.open:
            if self.open[-1] == "text":
                self.svg_texts[-1].add(data.strip())
        elif "style" not in self.open:
            self.text.append(data)
            if {"th", "td"} & set(self.open):
                self.rows[-1][-1] += data

    def svg(self, label: str) -> set[str]:
        """Return the texts of the one picture whose description starts with ``label``."""
        labels = [attributes["aria-label"] for tag, attributes in self.elements if tag == "svg"]
        (index,) = (index for index, each in enumerate(labels) if each.startswith(label))
        return self.svg_texts[index]


def table(markdown: str, heading: str) -> dict[str, dict[str, str]]:
    """Return {row title: {column: text}} of the table under a heading."""
    section = markdown.split(f"## {heading}\n", 1)[1].split("\n#", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def number(text: str) -> float:
    """Read the first number of a cell, its percent sign, points or prefix applied."""
    found = re.match(r"([−+]?[\d.,]+)(%| points| ?[kMGT]?B?|)", text)
    assert found, text
    value = float(found[1].replace("−", "-").replace(",", ""))
    unit = found[2].strip()
    return value * {"%": 0.01, "points": 0.01, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(unit.rstrip("B"), 1.0)
