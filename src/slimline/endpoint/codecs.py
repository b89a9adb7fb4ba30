"""Bytes to arrays and back: JSON, npy, raw bytes with dtype and shape.

Whatever the bytes are, the outcome is an array that fits the model's signature or an InputError in one line.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from slimline.endpoint.limits import Limits
from slimline.errors import InputError

# struct packs a flat list twice as fast as numpy reads a nested one, and takes neither text nor null for a number
PACKED = {
    "float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h", "int8": "b",
    "uint64": "Q", "uint32": "I", "uint16": "H", "uint8": "B",
}  # fmt: skip
NPY_MAGIC = b"\x93NUMPY"
MAX_RANK = 32


class Spec(Protocol):
    """An input as signature.json describes it."""

    def __getitem__(self, key: str, /) -> Any: ...


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises InputError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"the body is a JSON {type(document).__name__}, expected an object")
    return document


def from_lists(data: Any, spec: Spec, limits: Limits) -> NDArray[Any]:
    """Return nested lists as the array that ``spec`` asks for; one row may come without its batch axis.

    Raises InputError for ragged lists, other sizes, and anything that is not a number of the dtype.
    """
    name, dtype, axes = spec["name"], spec["dtype"], spec["shape"]
    depth, probe = 0, data
    while isinstance(probe, list) and depth <= len(axes):
        depth, probe = depth + 1, probe[0] if probe else None
    if depth == len(axes) - 1:
        data = [data]
    elif depth != len(axes):
        raise InputError(f"input {name!r}: lists nested {depth} deep, expected {len(axes)}: {axes}")
    shape: list[int] = []
    flat, last = data, len(axes) - 1
    try:
        for position, axis in enumerate(axes):
            if position:
                size = len(flat[0])
                if set(map(type, flat)) != {list} or set(map(len, flat)) != {size}:
                    raise InputError(f"input {name!r}: lists of unequal lengths along axis {position}")
                check_axis(name, position, size, axis, limits)
                shape.append(size)
                if position == last and dtype in PACKED:
                    packed = struct.pack(f"{len(flat) * size}{PACKED[dtype]}", *chain.from_iterable(flat))
                    return np.frombuffer(packed, dtype).reshape(shape)
                flat = list(chain.from_iterable(flat))
            else:
                check_axis(name, position, len(flat), axis, limits)
                shape.append(len(flat))
        if dtype in PACKED:
            return np.frombuffer(struct.pack(f"{len(flat)}{PACKED[dtype]}", *flat), dtype).reshape(shape)
        return _unpacked(name, flat, dtype).reshape(shape)
    except (TypeError, struct.error, OverflowError):
        raise InputError(f"input {name!r}: expected {dtype} numbers in lists of shape {axes}") from None


def _unpacked(name: str, flat: Sequence[Any], dtype: str) -> NDArray[Any]:
    """Return the rarer dtypes: booleans and text."""
    want = {"bool": bool, "object": str, "str": str, "string": str}.get(dtype)
    if want is None or not all(type(each) is want for each in flat):
        raise InputError(f"input {name!r}: expected {dtype} values")
    return np.array(flat, dtype=bool if want is bool else object)


def from_flat(data: Any, dtype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return row-major numbers, flat or nested as the v2 protocol allows, as an array of ``dtype`` and ``shape``."""
    if not isinstance(data, list):
        raise InputError(f"input {name!r}: data: expected a list of numbers")
    flat = data
    depth = 0
    while flat and depth < MAX_RANK and type(flat[0]) is list and set(map(type, flat)) == {list}:
        flat, depth = list(chain.from_iterable(flat)), depth + 1
    if len(shape) > MAX_RANK or math.prod(shape) != len(flat):
        raise InputError(f"input {name!r}: {len(flat)} values don't fill shape {list(shape)[:MAX_RANK]}")
    if dtype not in PACKED:
        return _unpacked(name, flat, dtype).reshape(shape)
    try:
        return np.frombuffer(struct.pack(f"{len(flat)}{PACKED[dtype]}", *flat), dtype).reshape(shape)
    except (struct.error, OverflowError):
        raise InputError(f"input {name!r}: expected {dtype} numbers") from None


def check_axis(name: str, position: int, size: int, axis: int | str, limits: Limits) -> None:
    """Raise InputError unless an axis of ``size`` fits the signature's and the limits."""
    if size < 1:
        raise InputError(f"input {name!r}: axis {position} is empty")
    if isinstance(axis, int):
        if size != axis:
            raise InputError(f"input {name!r}: axis {position} has size {size}, expected {axis}")
    elif size > (limits.max_axis if position else limits.max_rows):
        raise InputError(
            f"input {name!r}: axis {position} has size {size}, at most "
            f"{limits.max_axis if position else limits.max_rows} are taken at once"
        )


def from_npy(body: bytes, spec: Spec, limits: Limits) -> NDArray[Any]:
    """Return the array of an npy file (numpy's format 1.0 to 3.0; never pickled objects). Raises InputError."""
    name = spec["name"]
    if not body.startswith(NPY_MAGIC) or len(body) < 12:
        raise InputError(f"input {name!r}: not an npy file; send dtype and shape in headers with raw bytes")
    wide = body[6] > 1
    start = 12 if wide else 10
    end = start + int.from_bytes(body[8:start], "little")
    if body[6] not in {1, 2, 3} or end > min(len(body), 4096):
        raise InputError(f"input {name!r}: the npy header is damaged")
    dtype, fortran, shape = _npy_header(bytes(body[:end]), name)
    array = from_raw(memoryview(body)[end:], dtype, shape[::-1] if fortran else shape, name)
    return fit(array.T if fortran else array, spec, limits)


@lru_cache(maxsize=64)  # clients send the same header again and again; reading it costs more than the array
def _npy_header(head: bytes, name: str) -> tuple[str, bool, tuple[int, ...]]:
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception:  # noqa: BLE001  (whatever numpy makes of foreign bytes)
        raise InputError(f"input {name!r}: the npy header is damaged") from None
    if dtype.hasobject or dtype.names:
        raise InputError(f"input {name!r}: dtype {dtype} is not accepted")
    return dtype.str, bool(fortran), tuple(int(size) for size in shape)


def from_raw(data: bytes | memoryview, dtype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return little-endian C-ordered bytes as an array of ``dtype`` and ``shape``. Raises InputError."""
    try:
        kind = np.dtype(dtype)
    except Exception:  # noqa: BLE001  (np.dtype raises TypeError, SyntaxError and more)
        raise InputError(f"input {name!r}: unknown dtype {dtype[:40]!r}") from None
    if kind.hasobject or kind.names or kind.kind not in "fiub":
        raise InputError(f"input {name!r}: dtype {str(kind)[:40]} is not accepted")
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise InputError(f"input {name!r}: shape {list(shape)[:MAX_RANK]} is not possible")
    if math.prod(shape) * kind.itemsize != len(data):
        raise InputError(f"input {name!r}: {len(data)} bytes, but {kind} of shape {list(shape)} takes others")
    return np.frombuffer(data, kind).reshape(shape)


@lru_cache(maxsize=64)
def little_endian(dtype: str) -> str:
    """Return a dtype's plain name as the little-endian one that goes over the wire; others as they are."""
    return f"<{np.dtype(dtype).str[1:]}" if dtype in PACKED else dtype


def fit(array: NDArray[Any], spec: Spec, limits: Limits) -> NDArray[Any]:
    """Return ``array`` in the signature's dtype (where no value changes kind), C-ordered, with a batch axis."""
    name, want, axes = spec["name"], np.dtype(spec["dtype"]), spec["shape"]
    if array.ndim == len(axes) - 1:
        array = array[None]
    if array.ndim != len(axes):
        raise InputError(f"input {name!r}: {array.ndim} axes, expected {len(axes)}: {axes}")
    for position, (size, axis) in enumerate(zip(array.shape, axes, strict=True)):
        check_axis(name, position, size, axis, limits)
    if array.dtype != want:
        if not np.can_cast(array.dtype, want, "same_kind"):
            raise InputError(f"input {name!r}: dtype {array.dtype}, expected {want}")
        with np.errstate(over="ignore"):  # a float too large becomes infinite, which the Predictor refuses
            array = array.astype(want)
    return np.ascontiguousarray(array)


def shape_from(header: bytes, name: str) -> tuple[int, ...]:
    """Return the shape in a header such as ``8,1,28,28``. Raises InputError."""
    if not re.fullmatch(rb"\d{1,9}(,\d{1,9}){0,31}", header.replace(b" ", b"")):
        raise InputError(f"input {name!r}: expected a shape such as 8,1,28,28 in the header slimline-shape")
    return tuple(int(size) for size in header.split(b","))
