"""Tables and pictures as users have them, and a table of answers read back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

LABELS = [str(digit) for digit in range(10)]
TEXTS = ["the bank", "a goal", "said a new rate"] * 30


def image_bytes(image: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def rows(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return found
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {name: [line[name] for line in lines] for name in lines[0]}


def same(found: dict[str, list[Any]], expected: tuple[list[str], NDArray[np.float32]], order: list[int]) -> None:
    assert found["label"] == [expected[0][index] for index in order]
    probabilities = np.array([found[f"probability.{label}"] for label in LABELS], np.float64).T
    np.testing.assert_allclose(probabilities, expected[1][order], atol=1e-5)


def write_rows(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write a table as its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([columns, *zip(*columns.values(), strict=True)])
    return path
