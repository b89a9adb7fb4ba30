"""Prepared rows on disk, memory-mapped: a data set larger than memory costs a stage nothing but the pages it reads.

A folder of rows is made once for its key (data, settings, tokenizer) and shared by all stages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import leftovers, manifest

FOLDER = Path(".slimline/rows")
CHUNK = 4096


def cached(key: Any, make: Callable[[Path], None], folder: Path = FOLDER) -> Path:
    """Return the folder that ``make(scratch)`` fills for ``key`` (JSON data), whole or not at all."""
    leftovers.sweep(folder)
    target = folder / hashlib.sha256(manifest.canonical(key)).hexdigest()[:32]
    if target.is_dir():
        os.utime(target)
        return target
    scratch = folder / f"{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        make(scratch)
        scratch.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextmanager
def appending(folder: Path, names: Iterable[str]) -> Iterator[Callable[[Mapping[str, NDArray[Any]]], None]]:
    """Yield a function that appends arrays, rows first, to the raw file of each name in ``folder``."""
    with ExitStack() as stack:
        files = {name: stack.enter_context(_raw(folder, name).open("wb")) for name in names}

        def append(arrays: Mapping[str, NDArray[Any]]) -> None:
            for name, array in arrays.items():
                files[name].write(np.ascontiguousarray(array).data)

        yield append


def appended(folder: Path, stored: Mapping[str, tuple[type, tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Return what was appended, memory-mapped, N first; ``stored`` has dtype and shape of a row by name."""
    return {
        name: np.memmap(_raw(folder, name), dtype, "r").reshape(-1, *shape) for name, (dtype, shape) in stored.items()
    }


def drop_appended(folder: Path, names: Iterable[str]) -> None:
    """Remove the raw files."""
    for name in names:
        _raw(folder, name).unlink()


def _raw(folder: Path, name: str) -> Path:
    return folder / f"all.{name}"


def select(source: NDArray[Any], rows: NDArray[np.int64], path: Path) -> None:
    """Write ``source[rows]`` to ``path`` (.npy), so many rows at a time."""
    starts = range(0, max(1, len(rows)), CHUNK)
    save(path, (source[rows[start : start + CHUNK]] for start in starts), len(rows))


def save(path: Path, parts: Iterable[NDArray[Any]], rows: int) -> None:
    """Write arrays of like rows, so many in all, as one .npy file.

    A full disk is the operating system's error then: ``np.save`` raises one without a number, a mapped file ends the
    process.
    """
    with path.open("wb") as file:
        for at, part in enumerate(parts):
            if not at:
                described = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**described, "shape": (rows, *part.shape[1:])})
            file.write(np.ascontiguousarray(part).data)


def load(path: Path) -> NDArray[Any]:
    """Return a memory-mapped array; what is written to it stays in memory."""
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def equal_rows(arrays: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Return one number a row, the same for rows that are equal in all ``arrays`` (rows first), in order of appearance.

    What is held of a row is a digest of 16 bytes.
    """
    digests = np.empty(len(arrays[0]), "V16")
    for row in range(len(digests)):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array[row]).data)
        digests[row] = digest.digest()
    order = np.argsort(digests.view([("", np.uint64), ("", np.uint64)]), kind="stable")  # bytes alone have no order
    new = np.ones(len(order), bool)
    new[1:] = digests[order[1:]] != digests[order[:-1]]
    appeared = np.empty(int(new.sum()), np.int64)
    appeared[np.argsort(order[new])] = np.arange(len(appeared))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = appeared[np.cumsum(new) - 1]
    return numbers
