"""Sealed directories: written whole or not at all, and checked file by file when read.

``manifest.json`` lists every file with its size and sha256. The digest of a directory is the sha256 of the canonical
JSON of its manifest, so it covers every byte of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimline.errors import ArtifactError, SlimlineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MANIFEST = "manifest.json"


def canonical(document: Any) -> bytes:
    """Return ``document`` as canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_json(document: Any) -> str:
    """Return ``document`` as readable JSON with a newline at the end."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as readable JSON, atomically."""
    write_text(path, as_json(document))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise told(error, path) from error


def read_json(path: Path) -> Any:
    """Read a JSON file; damage is an ArtifactError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing; run 'dvc repro', or 'dvc pull' if it was pushed") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}); restore it with 'dvc checkout --force'") from error


@contextmanager
def arrays(
    path: Path, kind: type[SlimlineError] = ArtifactError, remedy: str = "make the release again"
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield the arrays of an .npz, each read when it is asked for; no pickles.

    Damage, and a name that isn't there, raise ``kind`` naming the file; ``remedy`` ends its message.
    """
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            yield found
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise kind(f"{path}: can't be read ({error}); {remedy}") from error


@contextmanager
def sealed(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends well, seal it and rename it to ``target``.

    Whatever stood at ``target`` is replaced only then. On any error the temporary folder is removed and ``target``
    is as it was. Leftovers of a killed process are swept by the next write to the same target; what it had set aside
    and not yet replaced is put back first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for aside in target.parent.glob(f".{target.name}.*.old.tmp"):
        if not target.exists():
            aside.rename(target)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        scratch.mkdir()
        yield scratch
        write_json(scratch / MANIFEST, {"format": FORMAT, "files": _listing(scratch)})
        place(scratch, target)
    except OSError as error:
        raise told(error, target) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def place(scratch: Path, target: Path) -> None:
    """Bring a finished folder to the disk and rename it to ``target``; what stood there goes only then."""
    _fsync_tree(scratch)
    old = target.parent / f".{target.name}.{os.getpid()}.old.tmp"
    if target.exists():
        target.rename(old)
    scratch.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    fsync_folder(target.parent)


def told(error: OSError, path: Path) -> Exception:
    """Return ``error`` as an ArtifactError that says what to do, where something can be done; else as it is."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ArtifactError(f"{path}: the disk is full; nothing was changed. Free some space and run again")
    if error.errno in {errno.EACCES, errno.EROFS, errno.EPERM}:
        return ArtifactError(f"{path}: can't be written ({error.strerror}); check the folder's permissions")
    return error


def _listing(root: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.relative_to(root).as_posix() != MANIFEST)
    return {path.relative_to(root).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}


def _fsync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            fsync_folder(path)
    fsync_folder(root)


def fsync_folder(path: Path) -> None:
    """Bring a folder's own entries to the disk, renames among them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(directory: Path) -> str:
    """Return ``sha256:…`` of a sealed directory, from its manifest alone (``verify`` checks the files)."""
    return "sha256:" + hashlib.sha256(canonical(_manifest(directory))).hexdigest()


def _manifest(directory: Path) -> Any:
    manifest = read_json(directory / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{directory / MANIFEST}: no manifest; restore it with 'dvc checkout --force'")
    check_format(manifest, directory / MANIFEST, FORMAT)
    return manifest


def check_format(document: Any, path: Path, known: int) -> None:
    """Refuse a document of a newer or missing format."""
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(found, int) or found < 1:
        raise ArtifactError(f"{path}: format: expected {known}, found {found!r}")
    if found > known:
        raise ArtifactError(f"{path}: format {found} is newer than this Slimline reads ({known}): upgrade slimline")


def verify(directory: Path, remedy: str = "restore it with 'dvc checkout --force'") -> str:
    """Check every file of a sealed directory against its manifest and return the directory's digest.

    Raises ArtifactError naming the first file that is missing, unlisted, or whose size or sha256 differs; ``remedy``
    ends its message.
    """
    listed = _manifest(directory)["files"]
    for name, facts in listed.items():
        path = directory / name
        if not isinstance(facts, dict) or not {"bytes", "sha256"} <= facts.keys():
            raise ArtifactError(f"{directory / MANIFEST}: files.{name}: no bytes and sha256; make the stage again")
        if directory.resolve() not in path.resolve().parents:
            raise ArtifactError(f"{directory / MANIFEST}: {name!r} points outside the directory")
        if not path.is_file():
            raise ArtifactError(f"{path}: missing, though {MANIFEST} lists it; {remedy}")
        if path.stat().st_size != facts["bytes"]:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes, {MANIFEST} says {facts['bytes']}; {remedy}")
        if sha256(path) != facts["sha256"]:
            raise ArtifactError(f"{path}: wrong digest, its bytes changed; {remedy}")
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).as_posix() != MANIFEST
    }
    if extra := sorted(present - listed.keys()):
        raise ArtifactError(f"{directory / extra[0]}: not in {MANIFEST}: remove it or make the stage again")
    return digest(directory)
