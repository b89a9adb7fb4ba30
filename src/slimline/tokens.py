"""Text to token numbers: the preprocessing step ``tokenize``, by a tokenizer.json. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.errors import DataError

IDS, TYPES = "input_ids", "token_type_ids"


def tokenize(
    values: Sequence[Any], *, file: str, max_length: int, pad_id: int, pair: bool = False
) -> NDArray[np.int64] | dict[str, NDArray[np.int64]]:
    """Return token numbers of texts, N × the longest row, at most ``max_length``; shorter rows end in ``pad_id``.

    ``file`` is a tokenizer.json. With ``pair`` a value is two texts, and {input_ids, token_type_ids} is returned: the
    longer text of a pair is cut first. Raises DataError naming the value that is no text.
    """
    texts = [_text(index, value, pair=pair) for index, value in enumerate(values)]
    tokenizer = _tokenizer(file, max_length)
    try:
        rows = tokenizer.encode_batch_fast(texts)
    except Exception as error:  # tokenizers raises plain exceptions, for a lone surrogate too
        raise DataError(f"text can't be tokenized: {' '.join(str(error).split())}") from error
    longest = max((len(row.ids) for row in rows), default=0)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    types = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = row.ids
        types[at, : len(row.ids)] = row.type_ids
    return {IDS: ids, TYPES: types} if pair else ids


def fills(document: Mapping[str, Any], signature: Mapping[str, Any]) -> dict[str, int]:
    """Return what fills up rows of each input, by a preprocess.json whose last step is ``tokenize``; else nothing.

    Nothing too where an output is as long as its row: it would show what was filled up.
    """
    step = (document.get("steps") or [{}])[-1]
    names = {spec["name"] for spec in signature["inputs"]}
    axes = {axis for spec in signature["inputs"] for axis in spec["shape"][1:] if isinstance(axis, str)}
    known = {document.get("input", IDS): step.get("pad_id"), **({TYPES: 0} if step.get("pair") else {})}
    as_long = any(axes & set(map(str, spec["shape"])) for spec in signature["outputs"])
    return known if step.get("op") == "tokenize" and names == known.keys() and not as_long else {}


def lengths(values: Sequence[Any], file: str) -> list[int]:
    """Return how many tokens each text (or pair of texts) has, uncut."""
    texts = [tuple(value) if isinstance(value, list) else str(value) for value in values]
    return [len(row.ids) for row in _tokenizer(file, None).encode_batch_fast(texts)]


def _text(index: int, value: Any, *, pair: bool) -> Any:
    if pair:
        if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise DataError(f"text {index}: a list of two texts is expected")
    if not isinstance(value, str):
        raise DataError(f"text {index}: {type(value).__name__} is no text")
    return value


@lru_cache(maxsize=8)
def _tokenizer(file: str, max_length: int | None) -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise DataError("tokenizers is not installed: pip install 'slimline[text]'") from error
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:
        raise DataError(f"{file}: not a tokenizer.json that can be read: {' '.join(str(error).split())}") from error
    tokenizer.no_truncation()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer
