"""Any bytes: an array that fits, or an InputError in one line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from slimline.endpoint import codecs
from slimline.endpoint.limits import Limits
from slimline.errors import InputError

LIMITS = Limits(max_rows=16, max_axis=8)
SPEC = {"name": "x", "dtype": "float32", "shape": ["batch", 2, 3]}
TOKENS = {"name": "ids", "dtype": "int64", "shape": ["batch", "sequence"]}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def unread(value: Any) -> Any:
    """Return a value as the body of a request brings it."""
    return codecs.parse_json(json.dumps({"x": value}).encode(), unread="x")["x"]


def from_lists(value: Any, spec: dict[str, Any] = SPEC) -> NDArray[Any]:
    """Return what /predict reads nested lists as."""
    body = json.dumps({"x": value}).encode()
    return codecs.from_lists(codecs.parse_json(body, unread="x"), {"x": spec}, body, LIMITS)["x"]


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what was read, or the one line that says why not."""
    try:
        return read(*arguments)
    except InputError as error:
        return str(error)


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 16), st.just(2), st.just(3)), elements=FLOATS))
def test_every_way_in_gives_the_same_array(array: NDArray[np.float32]) -> None:
    listed, flat = unread(array.tolist()), unread(array.ravel().tolist())
    for found in (
        from_lists(array.tolist()),
        codecs.from_npy(npy(array), SPEC, LIMITS),
        codecs.from_npy(npy(np.asfortranarray(array)), SPEC, LIMITS),
        codecs.fit(codecs.from_raw(array.tobytes(), "<f4", array.shape, "x"), SPEC, LIMITS),
        codecs.fit(codecs.from_flat(flat, "float32", list(array.shape), "x"), SPEC, LIMITS),
        codecs.fit(codecs.from_flat(listed, "float32", list(array.shape), "x"), SPEC, LIMITS),
    ):
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, array)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=30,
)


@given(JSON, st.sampled_from([SPEC, TOKENS]))
def test_any_json_value_fits_or_is_refused(value: Any, spec: dict[str, Any]) -> None:
    found = outcome(from_lists, value, spec)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert found.dtype == spec["dtype"]
        assert found.ndim == len(spec["shape"])
        assert found.shape[0] <= LIMITS.max_rows


def to(value: list[Any], path: list[int]) -> list[Any]:
    """Return the list that holds the value at ``path``."""
    for index in path[:-1]:
        value = value[index]
    return value


@st.composite
def mixed_depths(draw: st.DrawFn) -> Any:
    """Return nested lists of one depth, some of whose values are then lists, or none where lists were."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)) | st.tuples(st.integers(1, 3)))
    value: Any = draw(arrays.arrays(np.int64, shape, elements=st.integers(-9, 9))).tolist()
    for _ in range(draw(st.integers(0, 3))):
        at = [draw(st.integers(0, size - 1)) for size in shape]
        own = draw(st.sampled_from([[], [7], [7, 8], [[7]], [[], 7], 7]))
        for depth in range(len(at)):
            if not isinstance(to(value, at[: depth + 1]), list):
                break
        else:
            to(value, at)[at[-1]] = own
    return value


@given(mixed_depths())
def test_numpys_verdict_on_ragged_lists_holds(value: Any) -> None:
    found = outcome(from_lists, value, TOKENS)
    try:
        expected = np.array(value, np.int64)
    except ValueError:
        expected = None
    fits = expected is not None and expected.ndim in {1, 2} and expected.size > 0
    assert isinstance(found, str) is not fits
    if expected is not None and fits:
        np.testing.assert_array_equal(found, expected.reshape(-1, expected.shape[-1]))


@pytest.mark.parametrize(
    ("value", "spec", "where"),
    [
        ([[1, 2], [3, [4]]], TOKENS, [1, 1]),
        ([[1, [2, 3]], [4, []]], TOKENS, [0, 1]),
        ([1, [2]], TOKENS, [0, 1]),
        ([[1, [[2]]]], TOKENS, [0, 1]),
        ([[[1, 2, 3], [4, [5], 6]]], SPEC, [0, 1, 1]),
        ([[True, [False]]], {"name": "x", "dtype": "bool", "shape": ["batch", 2]}, [0, 1]),
    ],
    ids=str,
)
def test_a_list_among_numbers_is_named(value: Any, spec: dict[str, Any], where: list[int]) -> None:
    with pytest.raises(InputError, match=re.escape(f"a list at {where}, where one value is expected")):
        from_lists(value, spec)


def test_a_bracket_in_a_text_is_no_list() -> None:
    body = json.dumps({"id": "[[", "x": [[1, 2]]}).encode()
    found = codecs.from_lists(codecs.parse_json(body, unread="x"), {"x": TOKENS}, body, LIMITS)
    np.testing.assert_array_equal(found["x"], [[1, 2]])


def test_lists_of_several_inputs_are_told_apart() -> None:
    specs = {name: TOKENS | {"name": name} for name in ("ids", "mask")}
    body = json.dumps({"x": {"ids": [[1, 2]], "mask": [1, [0]]}}).encode()
    given = codecs.opened(codecs.parse_json(body, unread="x")["x"])
    with pytest.raises(InputError, match=r"input 'mask': a list at \[0, 1\]"):
        codecs.from_lists(given, specs, body, LIMITS)


@given(JSON, st.sampled_from(sorted(codecs.NUMBERS)), st.lists(st.integers(0, 5), max_size=4))
def test_any_flat_json_value_fits_or_is_refused(value: Any, dtype: str, shape: list[int]) -> None:
    found = outcome(lambda: codecs.from_flat(unread(value), dtype, shape, "x"))
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert (found.dtype, list(found.shape)) == (np.dtype(dtype), shape)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: npy(np.zeros((1, 2, 3)))[:60] + tail))
def test_any_bytes_are_an_array_or_refused(data: bytes) -> None:
    for body in (data, b"\x93NUMPY\x01\x00" + data):
        found = outcome(codecs.from_npy, body, SPEC, LIMITS)
        assert ("\n" not in found) if isinstance(found, str) else found.shape[1:] == (2, 3)


@given(st.binary(max_size=100), st.text(max_size=10), st.lists(st.integers(-3, 2**40), max_size=5))
def test_any_dtype_and_shape_are_an_array_or_refused(data: bytes, dtype: str, shape: list[int]) -> None:
    found = outcome(codecs.from_raw, data, dtype, shape, "x")
    assert ("\n" not in found) if isinstance(found, str) else found.nbytes == len(data)


@given(st.binary(max_size=40))
def test_any_body_is_a_json_object_or_refused(body: bytes) -> None:
    found = outcome(codecs.parse_json, body)
    assert ("\n" not in found) if isinstance(found, str) else isinstance(found, dict)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[[1, 2, 3], [4, 5]]], "unequal lengths along axis 2"),
        ([[[1, 2, 3]]], "axis 1 has size 1, expected 2"),
        ([[1, 2, 3]] * 2 * 2, "axis 1 has size 4, expected 2"),
        ([], "0 deep|nested 1 deep|empty"),
        ([[["1", 2, 3], [4, 5, 6]]], "expected float32 numbers"),
        ([[[None, 2, 3], [4, 5, 6]]], "expected float32 numbers"),
        ([[[1, 2, 3], [4, 5, 6]]] * 17, "axis 0 has size 17, at most 16"),
        ([[["abc", "def"]]], "axis 1 has size 1|expected float32"),
        ({"a": 1}, "nested 0 deep"),
    ],
)
def test_a_list_that_does_not_fit_says_why(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_lists(value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (npy(np.array([{}], dtype=object)), "not accepted"),
        (npy(np.zeros((1, 2, 3)))[:-1], "takes others"),
        (npy(np.zeros((1, 2, 4))), "axis 2 has size 4, expected 3"),
        (npy(np.zeros((1, 2, 3), np.complex128)), "not accepted"),
        (npy(np.zeros((1, 1, 2, 3))), "4 axes, expected 3"),
        (b"PK\x03\x04", "not an npy file"),
    ],
)
def test_an_npy_file_that_does_not_fit_says_why(body: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        codecs.from_npy(body, SPEC, LIMITS)


def test_a_float_is_no_token() -> None:
    with pytest.raises(InputError, match="expected int64 numbers"):
        from_lists([[1.5]], TOKENS)
    with pytest.raises(InputError, match="dtype float64, expected int64"):
        codecs.fit(np.zeros((1, 2)), TOKENS, LIMITS)


def test_an_open_axis_has_a_limit() -> None:
    with pytest.raises(InputError, match="axis 1 has size 9, at most 8"):
        from_lists([[0] * 9], TOKENS)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: codecs.from_flat(unread([1.5]), "float32", [1] * 33, "x"), "1 values don't fill shape"),
        (lambda: codecs.from_flat(unread(nested(True, 40)), "bool", [1], "x"), "expected bool values"),  # noqa: FBT003
        (lambda: codecs.from_raw(bytes(4), "<f4", [1] * 33, "x"), "is not possible"),
        (lambda: codecs.shape_from(b"1" + b",1" * 32, "x"), "expected a shape"),
    ],
    ids=["numbers", "truths", "bytes", "a header"],
)
def test_an_array_has_32_axes_at_most(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read()


def nested(value: Any, depth: int) -> Any:
    return [nested(value, depth - 1)] if depth else value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"x": 1} {"x": 2}', "not valid JSON"),
        (b'{"x": NaN}', "not valid JSON"),
        (b'{"x": "\xff"}', "not valid JSON"),
        (b'{"x": "\\ud800"}', "not valid JSON"),
        (b'{"x\\u0000": 1}', "zero byte"),
        (b"[" * 5000 + b"]" * 5000, "not valid JSON"),
        (b"[1]", "a JSON array, expected an object"),
        (b"", "not valid JSON"),
    ],
)
def test_a_body_that_is_no_object_says_why(body: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        codecs.parse_json(body)


@pytest.mark.parametrize(("value", "dtype"), [(300, "uint8"), (-1, "uint16"), (2**40, "int32"), (True, "float32")])
def test_a_number_out_of_range_or_a_truth_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(InputError, match=f"expected {dtype} numbers"):
        codecs.from_flat(unread([value]), dtype, [1], "x")


def test_a_float_too_large_for_its_dtype_is_infinite() -> None:
    assert np.isinf(codecs.from_flat(unread([1e39]), "float32", [1], "x")).all()
