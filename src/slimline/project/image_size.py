"""The size that a user's images are brought to, found in the images: the median of their smaller sides."""

from __future__ import annotations

import statistics
from pathlib import Path

from slimline.errors import DataError
from slimline.own_data import image_sources, image_stores, listed_files
from slimline.own_data.image_sources import Item

SAMPLE = 200
STEP = 32  # what nets of five halvings divide by
SMALLEST = 64
LARGEST = {"efficientnet-lite": 224}  # what its ImageNet weights were trained at; nets for small images stay small


def chosen(model: str, data: Path, archive: Path | None = None) -> int:
    """Return height and width for ``model`` in pixels, by a sample of the images in ``data`` or ``archive``."""
    sides = smaller_sides(data, archive)
    median = statistics.median(sides) if sides else SMALLEST
    return int(min(max(STEP * round(median / STEP), SMALLEST), LARGEST.get(model, SMALLEST)))


def smaller_sides(data: Path, archive: Path | None = None) -> list[int]:
    """Return the smaller side of up to ``SAMPLE`` images evenly spread over the data.

    What can't be read is left out: the task names it with its row.
    """
    if image_sources.is_table(data):
        files = image_stores.store(archive or data.parent)
        items = [Item(name, None) for name in listed_files.named_files(data)]
    else:
        files = image_stores.store(data)
        items = image_sources.by_folder(files)
    items = image_sources.in_order(files, items)
    count = min(SAMPLE, len(items))
    sides = []
    for item in (items[at * len(items) // count] for at in range(count)):
        try:
            (content,) = image_sources.pictures(files, [item])
            sides.append(min(image_sources.size_of(content)))
        except (DataError, OSError):
            continue
    return sides
