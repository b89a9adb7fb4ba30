"""How a release travels: as a directory, as a tar, or by a URL that fsspec reads. Needs no torch and no git.

A packed release is a tar of regular files whose first member is the manifest, so that what follows is known by name
and size before it is read: nothing else is written, wherever the bytes come from. The same release packs to the same
bytes.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from slimline import manifest
from slimline.errors import ArtifactError, ReleaseError, SlimlineError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
LARGEST_MANIFEST = 16 << 20
PIECE = 1 << 20
MAKE = "'dvc repro release' makes one in ./release; or name its folder"


def pack(release: Path, target: str) -> str:
    """Write a release as one file, ``target``: a path or a URL ending in .tar, .tar.gz or .tgz. Return its revision.

    The file appears whole or not at all. Raises ArtifactError when the release is damaged.
    """
    if not target.endswith(SUFFIXES):
        raise ReleaseError(f"{target}: its name must end in {', '.join(SUFFIXES)}")
    revision = _checked(release, str(release))
    local = None if _is_url(target) else Path(target)
    if local and not local.parent.is_dir():
        raise ReleaseError(f"{local.parent}: no such folder to write {local.name} into")
    with tempfile.TemporaryDirectory(dir=local.parent if local else None, prefix=".pack.", suffix=".tmp") as folder:
        scratch = Path(folder) / "packed"
        try:
            _write_tar(release, scratch, compress=not target.endswith(".tar"))
            if local:
                scratch.replace(local)
                manifest.fsync_folder(local.parent)
        except OSError as error:
            raise manifest.told(error, local or scratch) from error
        if local is None:
            with _remote(target) as (files, path):
                files.makedirs(PurePosixPath(path).parent.as_posix(), exist_ok=True)
                files.put_file(str(scratch), path)
    return revision


def unpack(source: str, target: Path, expect: str | None = None) -> str:
    """Bring a release from ``source`` to the directory ``target``, whole or not at all, and return its revision.

    ``source`` is a directory, a packed file or a URL of either. A release at ``target`` is replaced, anything else is
    not.
    """
    if target.exists() and not (target / "card.json").is_file():
        raise ReleaseError(f"{target}: exists and is no release; name another folder")
    scratch = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        revision = bring(source, scratch, expect)
        manifest.place(scratch, target)
    except OSError as error:
        raise manifest.told(error, target) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return revision


def bring(source: str, scratch: Path, expect: str | None = None) -> str:
    """Copy a release from ``source`` into the new folder ``scratch``, check every file, and return its revision.

    ``expect``, the beginning of a revision, is what it has to be. Raises ReleaseError when ``source`` can't be read
    or is another release, ArtifactError naming a file that arrived damaged. ``scratch`` is the caller's to remove.
    """
    if _is_url(source):
        with _remote(source) as (files, path):
            _fetch(files, path, source, scratch)
    elif Path(source).is_dir():
        _copy(Path(source), scratch)
    elif Path(source).is_file():
        with Path(source).open("rb") as file:
            _read_tar(file, source, scratch)
    else:
        raise ReleaseError(f"{source}: no such file or directory; {MAKE}")
    revision = _checked(scratch, source)
    if expect is not None and not revision.removeprefix("sha256:").startswith(expect.removeprefix("sha256:")):
        raise ReleaseError(f"{source}: its revision is {revision}, not {expect}")
    return revision


def _checked(directory: Path, source: str) -> str:
    if not (directory / manifest.MANIFEST).is_file():
        raise ReleaseError(f"{source}: no {manifest.MANIFEST}: not a release, or not all of it")
    try:
        revision = manifest.verify(directory, f"get {source} again")
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(directory), source)) from error
    if not (directory / "card.json").is_file():
        raise ReleaseError(f"{source}: no card.json: an export or artifact, not a release")
    return revision


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.rglob("*")):  # what a link leads to is copied, wherever it stands
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def _write_tar(release: Path, target: Path, *, compress: bool) -> None:
    names = sorted(manifest.read_json(release / manifest.MANIFEST)["files"])
    with target.open("wb") as file:
        # the header of gzip holds a name and a time: both are left out
        out = gzip.GzipFile("", "wb", 6, file, mtime=0) if compress else file
        with tarfile.open(fileobj=cast(Any, out), mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in [manifest.MANIFEST, *names]:
                member = tarfile.TarInfo(name)
                member.size, member.mode = (release / name).stat().st_size, 0o644
                with (release / name).open("rb") as content:
                    tar.addfile(member, content)
        if compress:
            out.close()
        file.flush()
        os.fsync(file.fileno())


def _read_tar(file: IO[bytes], source: str, scratch: Path) -> None:
    """Write the listed files of a packed release, read from a stream that needs no seeking."""
    scratch.mkdir()
    try:
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            sizes: dict[str, int] = {}
            for member in tar:
                tarfile.data_filter(member, str(scratch))  # absolute, ../ and links that lead outside are refused here
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ReleaseError(f"{source}: {member.name!r} is no regular file; pack it with 'slimline pack'")
                if not sizes:
                    sizes = _announced(member.name, content, source, scratch)
                elif sizes.get(member.name) != member.size:
                    raise ReleaseError(f"{source}: {member.name!r} is not as {manifest.MANIFEST} lists it")
                else:
                    _write(scratch / member.name, content)
    except tarfile.FilterError as error:
        raise ReleaseError(f"{source}: {error}; nothing was written") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ReleaseError(f"{source}: not a whole tar ({' '.join(str(error).split())}); get it again") from error


def _announced(name: str, content: IO[bytes], source: str, scratch: Path) -> dict[str, int]:
    """Return {path: bytes} from the manifest, which comes first, and write it."""
    if name != manifest.MANIFEST:
        raise ReleaseError(f"{source}: {name!r} comes first, not {manifest.MANIFEST}; pack it with 'slimline pack'")
    text = content.read(LARGEST_MANIFEST)
    try:
        sizes = {str(path): int(facts["bytes"]) for path, facts in json.loads(text)["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReleaseError(f"{source}: {manifest.MANIFEST}: damaged; get it again") from error
    for path in sizes:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ReleaseError(f"{source}: {manifest.MANIFEST}: {path!r} points outside the release")
    (scratch / manifest.MANIFEST).write_bytes(text)
    return sizes


def _write(target: Path, content: IO[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, PIECE)


def _fetch(files: Any, path: str, source: str, scratch: Path) -> None:
    if not files.isdir(path):
        with files.open(path, "rb") as file:
            _read_tar(file, source, scratch)
        return
    scratch.mkdir()
    folder = path.rstrip("/")
    with files.open(f"{folder}/{manifest.MANIFEST}", "rb") as file:
        sizes = _announced(manifest.MANIFEST, file, source, scratch)
    for name in sizes:
        with files.open(f"{folder}/{name}", "rb") as file:
            _write(scratch / name, file)


def _is_url(source: str) -> bool:
    return "://" in source


@contextmanager
def _remote(url: str) -> Iterator[tuple[Any, str]]:
    """Yield (file system, path) of a URL; what goes wrong far away becomes one line."""
    scheme = url.partition("://")[0]
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise ReleaseError("fsspec is not installed: pip install 'slimline[serve]'") from error
    try:
        yield fsspec.url_to_fs(url)
    except SlimlineError:
        raise
    except ImportError as error:
        raise ReleaseError(f"{url}: {' '.join(str(error).split())} ({scheme}:// asks for it)") from error
    except FileNotFoundError as error:
        raise ReleaseError(f"{url}: not found ({error})") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise  # this machine's disk
        raise ReleaseError(f"{url}: {' '.join(str(error).split())}") from error
    except Exception as error:  # each file system raises its own classes
        raise ReleaseError(f"{url}: {type(error).__name__}: {' '.join(str(error).split())}") from error
