"""Files by name in a folder or an archive (a zip, or a tar, compressed or not): where images lie."""

from __future__ import annotations

import tarfile
import weakref
import zipfile
import zlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from slimline.errors import DataError

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
UTF_8 = 1 << 11  # the flag of an archive's entry whose name says that it is UTF-8
DAMAGED = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError)  # the last: encrypted


class Store(Protocol):
    """Files by name."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files, in the order in which they are read fastest."""

    def broken(self) -> list[str]:
        """Return the names of links that lead to no file."""

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises KeyError or OSError where there is none."""


class Folder:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if each.is_file())

    def broken(self) -> list[str]:
        links = (each for each in self.path.rglob("*") if each.is_symlink() and not each.exists())
        return sorted(each.relative_to(self.path).as_posix() for each in links)

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

    def broken(self) -> list[str]:
        return []

    @cached_property
    def _held(self) -> dict[str, str]:
        """The files' names, and what the archive calls them."""
        if self._zip is not None:
            return {plain(_name(each)): each.filename for each in self._zip.infolist() if not each.is_dir()}
        try:
            held = [each.name for each in self._tar.getmembers() if each.isfile()]
            _check_end(self._tar)
        except DAMAGED as error:
            self._tar.close()
            raise DataError(f"{self.path}: damaged, or not whole: {error}; pack it again") from error
        return {plain(each): each for each in held}

    def read(self, name: str) -> bytes:
        name = self._held[plain(name)]
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


def plain(name: str) -> str:
    """Return a file's name without ``./`` and the like, and with / where Windows wrote a backslash."""
    return PurePosixPath(slashed(name)).as_posix()


def slashed(path: str) -> str:
    """Return a path with / where Windows wrote a backslash."""
    return path.replace("\\", "/")


def store(path: Path) -> Store:
    """Return the files of a folder or an archive."""
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if not path.name.lower().endswith(ARCHIVES):
        raise DataError(f"{path}: class folders, {', '.join(ARCHIVES)}, or a manifest is expected")
    return Archive(path)
