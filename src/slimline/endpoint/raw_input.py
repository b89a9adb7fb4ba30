"""The task's raw input (encoded images, text) to the model's arrays, by the release's own preprocess.json."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Sequence
from typing import Any

from slimline import image_heads, preprocess
from slimline.endpoint.codecs import fit
from slimline.endpoint.exchange import RefusedError
from slimline.endpoint.limits import Limits
from slimline.endpoint.loaded import Loaded
from slimline.errors import DataError, InputError
from slimline.predictor import Arrays

INLINE_PIXELS = 2**16  # an image of 256×256 decodes in less time than handing it to a thread takes
INLINE_CHARS = 2**12  # so many are split into tokens in a millisecond


async def arrays_of(values: Any, live: Loaded, limits: Limits) -> Arrays:
    """Return the model's inputs for a list of raw values: base64 of image files, texts or pairs of texts.

    Raises InputError or RefusedError (413 for too many pixels or characters).
    """
    if not isinstance(values, list) or not values:
        raise InputError('"raw": expected a list of one or more values')
    if len(values) > limits.max_rows:
        raise InputError(f'"raw": {len(values)} rows, at most {limits.max_rows} are taken at once')
    if is_image(live):
        return await decoded([_unpacked(index, value) for index, value in enumerate(values)], live, limits)
    pair = preprocess.takes_pairs(live.preprocess)
    total = 0
    for index, value in enumerate(values):
        lengths = [len(each) for each in _texts(index, value, pair=pair)]
        if max(lengths) > limits.max_text_chars:
            raise RefusedError(413, f'"raw": row {index}: more than {limits.max_text_chars} characters')
        total += sum(lengths)
    if total > limits.max_request_chars:
        raise RefusedError(413, f"texts of more than {limits.max_request_chars} characters together; send fewer")
    if total <= INLINE_CHARS:
        return _run(values, live, limits)
    return await asyncio.to_thread(_run, values, live, limits)


def is_image(live: Loaded) -> bool:
    """Return whether the release's raw input is an encoded image."""
    steps = live.preprocess.get("steps") or []
    return bool(steps) and steps[0].get("op") == "decode_image"


async def decoded(images: Sequence[bytes], live: Loaded, limits: Limits) -> Arrays:
    """Return the model's inputs for encoded images, decoded in a thread when they are large."""
    pixels = sum(_pixels(index, image, limits) for index, image in enumerate(images))
    if pixels > limits.max_request_pixels:
        raise RefusedError(413, f"images of more than {limits.max_request_pixels} pixels together; send fewer at once")
    if pixels <= INLINE_PIXELS:
        return _run(images, live, limits)
    return await asyncio.to_thread(_run, images, live, limits)


def _texts(index: int, value: Any, *, pair: bool) -> list[str]:
    """Return the text of a row, or its two."""
    texts = value if pair and isinstance(value, list) else [value]
    if len(texts) != 1 + pair or not all(isinstance(each, str) for each in texts):
        raise InputError(f'"raw": row {index}: expected {"a list of two texts" if pair else "text"}')
    return texts


def _unpacked(index: int, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InputError(f'"raw": row {index}: expected an image file as base64')
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        raise InputError(f'"raw": row {index}: not valid base64') from None


def _pixels(index: int, image: bytes, limits: Limits) -> int:
    try:
        found = image_heads.pixels(image)
    except DataError as error:
        raise InputError(f'"raw": row {index}: {error}') from None
    if found > limits.max_pixels:
        raise RefusedError(413, f'"raw": row {index}: an image of more than {limits.max_pixels} pixels')
    return found


def _run(values: Sequence[Any], live: Loaded, limits: Limits) -> Arrays:
    arrays = preprocess.run(live.preprocess, values, live.trust)
    return {name: fit(array, live.specs[name], limits) for name, array in arrays.items() if name in live.specs}
