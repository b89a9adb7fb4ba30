"""Which files are images, by their names: a suffix of a format that the installed Pillow opens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath

NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}  # Pillow knows them, but draws none alone
SIDE_FILES = {".csv", ".db", ".html", ".ini", ".json", ".md", ".rst", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
SIDE_NAMES = {"copying", "license", "makefile", "readme"}
SHOWN = 5


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of pictures, lower case, with their dot."""
    from PIL import Image  # not at import: its plug-ins take half a second to load

    found = Image.registered_extensions()
    opened = {*Image.OPEN, "MPO"} - NO_PICTURES  # Pillow opens an MPO as the JPEG that it starts as
    return frozenset(suffix for suffix, kind in found.items() if kind in opened)


def is_image(name: str) -> bool:
    """Return whether a file is a picture by its name."""
    return _suffix(name) in suffixes()


def is_hidden(name: str) -> bool:
    """Return whether a path leads through a folder that starts with . or __, or to a file that starts with a dot.

    Editors, notebooks and archivers leave such: .ipynb_checkpoints, __MACOSX, ._a.png.
    """
    *folders, base = PurePosixPath(name).parts
    return base.startswith(".") or any(each.startswith((".", "__")) and each != ".." for each in folders)


def left_out(names: Iterable[str], broken: Iterable[str] = ()) -> list[str]:
    """Return a line on the files that are no pictures by their names, one on hidden pictures, one on ``broken`` links.

    ``names`` are paths; a file in no folder doesn't count, nor do usual side files and what macOS adds to archives.
    """
    names = [name for name in names if "/" in name]
    lines = _strange([name for name in names if not is_hidden(name) and not is_image(name) and not _is_beside(name)])
    shadows = [name for name in names if is_hidden(name) and is_image(name) and "/._" not in name]
    if shadows:
        images = "image" if len(shadows) == 1 else "images"
        lines.append(f"{len(shadows):,} {images} left out, such as {min(shadows)}: hidden, by names with . or __ first")
    if dangling := [name for name in broken if "/" in name and is_image(name) and not is_hidden(name)]:
        links = "link" if len(dangling) == 1 else "links"
        lines.append(f"{len(dangling):,} {links} left out, such as {min(dangling)}: no file where it leads")
    return lines


def _strange(found: Sequence[str]) -> list[str]:
    if not found:
        return []
    kinds = sorted({_suffix(name) for name in found})
    named = ", ".join(
        [*(kind or "files without a suffix" for kind in kinds[:SHOWN]), *(["…"] if kinds[SHOWN:] else [])]
    )
    files = "file" if len(found) == 1 else "files"
    return [f"{len(found):,} {files} left out, such as {min(found)}: Pillow reads no {named}"]


def _is_beside(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return _suffix(base) in SIDE_FILES or PurePosixPath(base).stem in SIDE_NAMES


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
