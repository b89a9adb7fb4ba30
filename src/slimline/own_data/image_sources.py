"""What images there are, of which labels: class folders, a table of paths and labels, an archive. Needs no torch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from slimline import tables
from slimline.errors import DataError
from slimline.own_data import image_names
from slimline.own_data.image_stores import ARCHIVES, DAMAGED, Archive, Store, plain, slashed
from slimline.own_data.labelled_rows import PARTS, SAID, group_of, numbered


class Item(NamedTuple):
    """One image: its name in the store, its label as it stands there, its split ("": none is named), its group."""

    name: str
    label: Any
    part: str = ""
    group: str = ""


def is_table(path: Path) -> bool:
    """Return whether images are listed in a file, rather than lying in a folder or an archive."""
    return path.is_file() and not path.name.lower().endswith(ARCHIVES)


def by_folder(files: Store) -> list[Item]:
    """Return the images of CLASS/… or SPLIT/CLASS/…; a folder around them all doesn't count, nor do hidden ones."""
    names = files.names()
    images = [name for name in names if image_names.is_image(name) and not image_names.is_hidden(name)]
    if not images:
        why = (
            "; ".join(image_names.left_out(names, files.broken()))
            or "none has a suffix of the formats that Pillow reads"
        )
        raise DataError(f"{files.path}: no image in it ({why})")
    paths = [PurePosixPath(name).parts for name in images]
    while all(len(each) > 2 for each in paths) and len({each[0] for each in paths}) == 1:
        paths = [each[1:] for each in paths]
    if loose := [name for name, each in zip(images, paths, strict=True) if len(each) < 2]:
        raise DataError(
            f"{files.path}: {loose[0]} lies in no class folder; put it into one that is named by its label, or list "
            "images and labels in a table"
        )
    split = _are_parts(files.path, images, paths)
    return [
        Item(name, each[1] if split else each[0], PARTS[each[0].lower()] if split else "")
        for name, each in zip(images, paths, strict=True)
    ]


def left_out(files: Store) -> list[str]:
    """Return lines on the files in class folders that ``by_folder`` leaves out, other than usual side files."""
    return image_names.left_out(files.names(), files.broken())


def _are_parts(root: Path, images: Sequence[str], paths: Sequence[tuple[str, ...]]) -> bool:
    """Return whether the first folders are parts of the data, not classes. Raises DataError where just some are."""
    parts = {each[0] for each in paths if each[0].lower() in PARTS and len(each) > 2}
    if not parts:
        return False
    for name, each in zip(images, paths, strict=True):
        if each[0].lower() not in PARTS:
            raise DataError(
                f"{root}: folder {min(parts)!r} is a part of the data and {each[0]!r} beside it isn't; parts are "
                f"called {', '.join(PARTS)}: rename it, or take it out"
            )
        if len(each) == 2:
            raise DataError(f"{root}: {name} lies in no class folder, as others in {min(parts)!r} do; take it out")
    return True


def empty_classes(root: Path, items: Sequence[Item]) -> list[Path]:
    """Return the folders that stand beside those of classes under ``root`` and hold no image; hidden ones don't count.

    ``items`` are those of ``by_folder``.
    """
    full, beside = set(), set()
    for item in items:
        parts = PurePosixPath(item.name).parts
        place = root.joinpath(*parts[: parts.index(str(item.label)) + 1])
        full.add(place)
        beside.add(place.parent)
    return sorted(
        each
        for parent in beside
        for each in parent.iterdir()
        if each.is_dir() and each not in full and not each.name.startswith((".", "__"))
    )


def by_manifest(path: Path, label: str, split: str | None, group: str | None, *, numeric: bool = False) -> list[Item]:
    """Return the images that a table lists, by its column of paths and that of labels, ``numeric`` where so."""
    table = tables.read(path)
    columns = [tables.path_column(table.names), label]
    tables.check_columns(table, [*columns, *(each for each in (split, group) if each)])
    items: list[Item] = []
    written = tables.Numbers()
    used = list(dict.fromkeys([*columns, *(each for each in (split, group) if each)]))
    for batch, _ in table.batches(1000, used):
        found = {name: tables.plain(batch[name]) for name in used}
        for at in range(len(found[columns[0]])):
            part = str(found[split][at]).strip().lower() if split else ""
            if split and part not in PARTS:
                raise DataError(f"{path}: row {len(items) + 1}: column {split!r}: {part!r} is no split; it says {SAID}")
            value, named = found[columns[1]][at], found[columns[0]][at]
            if isinstance(named, bytes | dict):
                raise DataError(
                    f"{path}: row {len(items) + 1}: column {columns[0]!r}: an image itself, not the path of its file; "
                    "write the images to files and list these"
                )
            value = written.read(value, len(items) + 1, table.number) if numeric else value
            items.append(
                Item(slashed(str(named)), value, PARTS.get(part, ""), group_of(found[group][at]) if group else "")
            )
        written.check(lambda row: f"{path}: row {row}", f"column {label!r}")
    if not items:
        raise DataError(f"{path}: no row in it")
    return items


def check_listed(path: Path, files: Store, items: Sequence[Item]) -> None:
    """Raise DataError naming the rows of the table at ``path`` whose images aren't among ``files``."""
    known = set(files.names()) if isinstance(files, Archive) else None
    missing = [
        row
        for row, item in enumerate(items, 1)
        if not (plain(item.name) in known if known is not None else (files.path / item.name).is_file())
    ]
    if missing:
        name = items[missing[0] - 1].name
        others = " and others" if len(missing) > 1 else ""
        raise DataError(f"{numbered(path, missing, len(missing))}: {name!r}{others}: no such image in {files.path}")


def in_order(files: Store, items: Sequence[Item]) -> list[Item]:
    """Return the items in the order in which ``files`` are read fastest: a compressed tar can't go back cheaply."""
    if not isinstance(files, Archive):
        return list(items)
    place = {name: at for at, name in enumerate(files.names())}
    return sorted(items, key=lambda item: place.get(plain(item.name), 0))


def pictures(files: Store, items: Sequence[Item]) -> Iterator[bytes]:
    """Yield each item's file. Raises DataError naming the first that isn't there."""
    for item in items:
        try:
            yield files.read(item.name)
        except (KeyError, *DAMAGED) as error:
            raise DataError(f"{files.path}: {item.name}: can't be read: {error}") from error


def size_of(content: bytes) -> tuple[int, int]:
    """Return (height, width) of an encoded image."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return picture.height, picture.width
