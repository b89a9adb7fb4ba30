"""Where a user's images lie: class folders, a manifest of paths and labels, a tar or zip of either. Needs no torch."""

from __future__ import annotations

import io
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from slimline import image_names, tables
from slimline.errors import DataError
from slimline.labelled_rows import PARTS, SAID, group_of, numbered
from slimline.tables import ARCHIVES

UTF_8 = 1 << 11  # the flag of an archive's entry whose name says that it is UTF-8
DAMAGED = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


class Item(NamedTuple):
    """One image: its name in the store, its label as it stands there, its split ("": none is named), its group."""

    name: str
    label: Any
    part: str = ""
    group: str = ""


class Store(Protocol):
    """Files by name."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files, in the order in which they are read fastest."""

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises KeyError or OSError where there is none."""


class Folder:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if each.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class Archive:
    """The files in a zip, or a tar (compressed or not). ./CLASS/FILE, as tar may call one, is known as CLASS/FILE."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.suffix.lower() == ".zip":
                self._zip: zipfile.ZipFile | None = zipfile.ZipFile(path)
            else:
                self._zip, self._tar = None, tarfile.open(path)  # noqa: SIM115  (it stays open)
                weakref.finalize(self, self._tar.close)
        except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path}: not an archive that can be read: {error}") from error

    def names(self) -> list[str]:
        return list(self._held)

    @cached_property
    def _held(self) -> dict[str, str]:
        """The files' names, and what the archive calls them."""
        if self._zip is not None:
            return {_plain(_name(each)): each.filename for each in self._zip.infolist() if not each.is_dir()}
        try:
            held = [each.name for each in self._tar.getmembers() if each.isfile()]
            _check_end(self._tar)
        except DAMAGED as error:
            self._tar.close()
            raise DataError(f"{self.path}: damaged, or not whole: {error}; pack it again") from error
        return {_plain(each): each for each in held}

    def read(self, name: str) -> bytes:
        name = self._held[_plain(name)]
        if self._zip is not None:
            return self._zip.read(name)
        file = self._tar.extractfile(name)
        if file is None:
            raise KeyError(name)
        return file.read()


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError where a tar whose members were all read lacks its end, a block of zeros: tarfile overlooks it."""
    assert archive.fileobj is not None  # noqa: S101  (it is open for reading)
    archive.fileobj.seek(archive.offset)
    if len(archive.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it has no end")


def _name(entry: zipfile.ZipInfo) -> str:
    """Return a file's name in UTF-8, which Linux's and macOS's zip write without saying so."""
    if entry.flag_bits & UTF_8:
        return entry.filename
    with suppress(UnicodeError):
        return entry.filename.encode("cp437").decode("utf-8")
    return entry.filename


def _plain(name: str) -> str:
    return PurePosixPath(name).as_posix()


def is_table(path: Path) -> bool:
    """Return whether images are listed in a file, rather than lying in a folder or an archive."""
    return path.is_file() and not path.name.lower().endswith(ARCHIVES)


def store(path: Path) -> Store:
    """Return the files of a folder or an archive."""
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if not path.name.lower().endswith(ARCHIVES):
        raise DataError(f"{path}: class folders, {', '.join(ARCHIVES)}, or a manifest is expected")
    return Archive(path)


def by_folder(files: Store) -> list[Item]:
    """Return the images of CLASS/… or SPLIT/CLASS/…; a folder around them all doesn't count, nor do hidden ones."""
    names = files.names()
    images = [name for name in names if image_names.is_image(name) and not image_names.is_hidden(name)]
    if not images:
        why = "; ".join(image_names.left_out(names)) or "none has a suffix of the formats that Pillow reads"
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
    return image_names.left_out(files.names())


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
            items.append(Item(str(named), value, PARTS.get(part, ""), group_of(found[group][at]) if group else ""))
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
        if not (_plain(item.name) in known if known is not None else (files.path / item.name).is_file())
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
    return sorted(items, key=lambda item: place.get(_plain(item.name), 0))


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
