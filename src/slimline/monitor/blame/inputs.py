"""Rows to replay from files: arrays in an .npz, or what ``slimline predict`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slimline import manifest, tables
from slimline.errors import DataError, InputError
from slimline.monitor.blame.chain import Chain, Rows
from slimline.monitor.blame.verdict import replayed
from slimline.predictor import Arrays, Predictor
from slimline.scoring import Feed

BATCH = 256


def read(release: Path, source: Path, labels: str) -> Rows:
    """Send every row of ``source`` through each stage of ``release``.

    An .npz holds an array for each input of the model and, maybe, ``labels``; a .csv or .parquet has a column of that
    name; images may lie in folders named by their labels. Without truth, stages are compared with each other alone.
    Raises DataError or InputError naming the file.
    """
    chain = Chain.read(release)
    if source.suffix == ".npz":
        inputs, truth = _arrays(source, labels)
    else:
        inputs, truth = _table(chain, source, labels)
    predictor = Predictor(release)
    try:
        predictor.check(inputs)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    finally:
        predictor.close()
    known = [] if truth is None else [each for each in truth if isinstance(each, str)]
    if known and chain.labels and not chain.many and not any(chain.index(each) >= 0 for each in known):
        raise DataError(f"{source}: {labels} {known[0]!r} is no label of the task; it has {', '.join(chain.labels)}")
    return replayed(release, inputs, truth)


def _arrays(source: Path, labels: str) -> tuple[Arrays, list[Any] | None]:
    with manifest.arrays(source, DataError, "write it with numpy.savez") as arrays:
        found = dict(arrays)
    truth = found.pop(labels, None)
    counts = {name: len(array) for name, array in found.items()} | ({} if truth is None else {labels: len(truth)})
    if not found or len(set(counts.values())) != 1:
        raise DataError(f"{source}: expected arrays of equally many rows, found {counts}")
    return found, None if truth is None else truth.tolist()


def _table(chain: Chain, source: Path, labels: str) -> tuple[Arrays, list[Any] | None]:
    table = tables.read(source)
    predictor = Predictor(chain.directory)
    parts: list[Arrays] = []
    truth: list[Any] = []
    try:
        feed = Feed(chain.directory, predictor, table)
        for columns, _ in table.batches(BATCH):
            parts.append(feed(columns))
            if labels in columns:
                truth += [str(each) for each in tables.plain(columns[labels])]
            elif source.is_dir():
                truth += [Path(each).parts[0] for each in columns[tables.PATH]]
    except (DataError, InputError) as error:
        said = str(error)
        raise type(error)(said if said.startswith(str(source)) else f"{source}: {said}") from error
    finally:
        predictor.close()
    if not parts:
        raise DataError(f"{source}: no row in it")
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    of_task = source.is_file() or any(chain.index(each) >= 0 for each in truth)  # folders may be named by anything
    return inputs, truth if truth and of_task else None
