"""Bytes to arrays and back: JSON, npy, raw bytes with dtype and shape.

Whatever the bytes are, the outcome is an array that fits the model's signature or an InputError in one line.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Object, Parser

from slimline.endpoint.limits import Limits
from slimline.errors import InputError

# What the parser is asked for, by a dtype's kind: it takes neither text nor null nor true for a number.
READ: dict[str, tuple[Literal["d", "i", "u"], str]] = {"f": ("d", "f8"), "i": ("i", "i8"), "u": ("u", "u8")}
NUMBERS = {
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
}  # fmt: skip
NPY_MAGIC = b"\x93NUMPY"
MAX_RANK = 32
INLINE_BYTES = 2**20  # of JSON, which is read in some milliseconds


P = ParamSpec("P")
T = TypeVar("T")


class Spec(Protocol):
    """An input as signature.json describes it."""

    def __getitem__(self, key: str, /) -> Any: ...


async def aside(size: int, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``read(…)``, in a thread where ``size`` bytes of JSON would hold up the event loop."""
    if size <= INLINE_BYTES:
        return read(*args, **kwargs)
    return await asyncio.to_thread(read, *args, **kwargs)


def parse_json(body: bytes, unread: str = "") -> dict[str, Any]:
    """Return the JSON object in ``body``. Raises InputError.

    What stands under the key ``unread`` is left in the parser, where ``opened`` and ``plain`` find it: ``from_lists``
    and ``from_flat`` then read its numbers without making a Python object of each.
    """
    try:
        document = Parser().parse(body)
        if isinstance(document, Object):
            return {key: value if key == unread else plain(value) for key, value in opened(document).items()}
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the body is not valid JSON: {str(error).split(': ')[-1].strip()}") from None
    raise InputError(f"the body is a JSON {type(document).__name__.lower()}, expected an object")


def plain(value: Any) -> Any:
    """Return what was left in the parser as dicts, lists and scalars."""
    if isinstance(value, Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, Object) else value


def opened(value: Any) -> Any:
    """Return what was left in the parser as a dict or list whose own values are still there. Raises InputError."""
    if isinstance(value, Array):
        return list(value)
    if not isinstance(value, Object):
        return value
    try:
        return {key: value[key] for key in value}
    except KeyError:  # the parser finds no key with a zero byte in it
        raise InputError("the body has a key that holds a zero byte") from None


def from_lists(
    given: Mapping[str, Any], specs: Mapping[str, Spec], body: bytes, limits: Limits
) -> dict[str, NDArray[Any]]:
    """Return each input's unread nested lists as the array that its spec asks for.

    One row may come without its batch axis. ``body`` is what ``given`` was read from. Raises InputError for ragged
    lists, other sizes, and anything that is not a number of the dtype.
    """
    nests = {name: _nest(given[name], spec, limits) for name, spec in specs.items()}
    if body.count(b"[") > sum(each.lists for each in nests.values()):  # else none is left to stand among numbers
        for name, nest in nests.items():
            _check_numbers(name, nest, specs[name]["shape"])
    return {name: from_flat(given[name], specs[name]["dtype"], nest.shape, name) for name, nest in nests.items()}


class _Nest(NamedTuple):
    """What nested lists are: the array's ``shape``, how many ``lists`` there are, those of numbers."""

    shape: list[int]
    lists: int
    innermost: list[Array]


def _nest(data: Any, spec: Spec, limits: Limits) -> _Nest:
    """Return how unread lists are nested, down to those of numbers. Raises InputError unless they fit ``spec``."""
    name, axes = spec["name"], spec["shape"]
    depth, probe = 0, data
    while isinstance(probe, Array) and depth <= len(axes):
        depth, probe = depth + 1, probe[0] if len(probe) else None
    if depth not in {len(axes), len(axes) - 1} or not depth:
        raise InputError(f"input {name!r}: lists nested {depth} deep, expected {len(axes)}: {axes}")
    shape = [1] * (len(axes) - depth)
    level, lists = [data], 1
    for position in range(len(shape), len(axes)):
        size = len(level[0])
        if any(type(each) is not Array or len(each) != size for each in level):
            raise InputError(f"input {name!r}: lists of unequal lengths along axis {position}")
        check_axis(name, position, size, axes[position], limits)
        shape.append(size)
        if position < len(axes) - 1:
            level = list(chain.from_iterable(level))
            lists += len(level)
    return _Nest(shape, lists, level)


def _check_numbers(name: str, nest: _Nest, axes: Sequence[int | str]) -> None:
    """Raise InputError where a list stands for a number: the parser's ``as_buffer`` would read through it."""
    for at, value in enumerate(chain.from_iterable(nest.innermost)):
        if isinstance(value, Array):
            where = [int(index) for index in np.unravel_index(at, nest.shape)]
            raise InputError(f"input {name!r}: a list at {where}, where one value is expected: {axes}")


def from_flat(data: Any, dtype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return unread row-major numbers, flat or nested in any way, as an array of ``dtype`` and ``shape``."""
    if not isinstance(data, Array):
        raise InputError(f"input {name!r}: data: expected a list of numbers")
    flat = _numbers(data, np.dtype(dtype), name) if dtype in NUMBERS else _others(data.as_list(), dtype, name)
    if len(shape) > MAX_RANK or math.prod(shape) != len(flat):
        raise InputError(f"input {name!r}: {len(flat)} values don't fill shape {list(shape)[:MAX_RANK]}")
    return flat.reshape(shape)


def _numbers(data: Array, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    kind, wide = READ[dtype.kind]
    try:
        read = np.frombuffer(data.as_buffer(of_type=kind), wide)
    except (TypeError, ValueError):
        raise InputError(f"input {name!r}: expected {dtype} numbers") from None
    if read.dtype == dtype:
        return read
    with np.errstate(over="ignore"):  # a float too large becomes infinite, which the Predictor refuses
        found: NDArray[Any] = read.astype(dtype)
    if kind != "d" and not np.array_equal(found, read):
        raise InputError(f"input {name!r}: expected {dtype} numbers")
    return found


def _others(flat: list[Any], dtype: str, name: str) -> NDArray[Any]:
    """Return the rarer dtypes, booleans and text, from lists however nested."""
    depth = 0
    while depth < MAX_RANK and any(type(each) is list for each in flat):
        flat, depth = list(chain.from_iterable(each if type(each) is list else [each] for each in flat)), depth + 1
    want = {"bool": bool, "object": str, "str": str, "string": str}.get(dtype)
    if want is None or not all(type(each) is want for each in flat):
        raise InputError(f"input {name!r}: expected {dtype} values")
    return np.array(flat, dtype=bool if want is bool else object)


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
    return f"<{np.dtype(dtype).str[1:]}" if dtype in NUMBERS else dtype


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
