"""Which files are images, by their names: a suffix of a format that the installed Pillow opens."""

from __future__ import annotations

from collections.abc import Iterable
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


def left_out(names: Iterable[str]) -> str:
    """Return one line on the files that are no pictures by their names, "" where there are none but usual side files.

    ``names`` are paths; a file in no folder doesn't count.
    """
    found = [name for name in names if "/" in name and not is_image(name) and not _is_beside(name)]
    if not found:
        return ""
    kinds = sorted({_suffix(name) for name in found})
    named = ", ".join(
        [*(kind or "files without a suffix" for kind in kinds[:SHOWN]), *(["…"] if kinds[SHOWN:] else [])]
    )
    files = "file" if len(found) == 1 else "files"
    return f"{len(found):,} {files} left out, such as {min(found)}: Pillow reads no {named}"


def _is_beside(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return _suffix(base) in SIDE_FILES or PurePosixPath(base).stem in SIDE_NAMES or base.startswith(".")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
