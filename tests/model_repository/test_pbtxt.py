from __future__ import annotations

from typing import Any

from google.protobuf import text_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from slimline.model_repository.pbtxt import Word, as_text


@given(name=st.text(st.characters(exclude_categories=["Cs"])), sizes=st.lists(st.integers(1, 2**31 - 1)))
def test_what_is_written_is_read_by_protobuf(name: str, sizes: list[int]) -> None:
    message: dict[str, Any] = {
        "name": name,
        "version_policy": {"all": {}},
        "input": [{"name": name, "data_type": Word("TYPE_FP32"), "dims": sizes, "optional": True}],
        "dynamic_batching": {"preferred_batch_size": sizes},
    }
    found = text_format.Parse(as_text(message), ModelConfig())
    assert (found.name, list(found.dynamic_batching.preferred_batch_size)) == (name, sizes)
    (tensor,) = found.input
    assert (tensor.name, list(tensor.dims), tensor.optional) == (name, sizes, True)
    assert tensor.data_type == 11  # TYPE_FP32 of model_config.proto
    assert found.version_policy.HasField("all")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_kept(value: float) -> None:
    text = as_text({"fields": [{"key": "x", "value": {"number_value": value}}]})
    assert text_format.Parse(text, Struct())["x"] == value
