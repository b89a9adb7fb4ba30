"""A release that reads text, by the real tokenizer: raw texts, token numbers, and a server that lacks tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from slimline import preprocess
from slimline.model_repository.repository import Options, write
from slimline.predictor import Predictor
from tests.text_releases import without_ranges

from .conftest import Server

PROTOCOLS: dict[str, ModuleType] = {"http": tritonclient.http, "grpc": tritonclient.grpc}
REFUSED = {"400", "StatusCode.INVALID_ARGUMENT"}
TEXTS = ["goal", "the bank said a new rate", "", "atom " * 40, "Käse ☃"]


@pytest.fixture(scope="module")
def of_text(serve: Callable[..., Server], text_release: Path) -> Server:
    return serve([text_release], largest=16)


def ask(server: Server, protocol: str, model: str, name: str, array: NDArray[Any], datatype: str) -> Any:
    module = PROTOCOLS[protocol]
    sent = module.InferInput(name, list(array.shape), datatype)
    sent.set_data_from_numpy(array)
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        return client.infer(model, [sent]).as_numpy("logits")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_of_several_lengths_in_one_batch_are_answered_as_each_alone(
    of_text: Server, text_release: Path, protocol: str
) -> None:
    document = preprocess.read(text_release / "chain" / "teacher")
    predictor = Predictor(text_release, threads=1)
    alone = [predictor.predict(preprocess.run(document, [each]))["logits"][0] for each in TEXTS]
    raw = np.array([[each.encode()] for each in TEXTS], object)
    np.testing.assert_allclose(ask(of_text, protocol, "text-raw", "raw", raw, "BYTES"), alone, rtol=1e-4, atol=1e-5)


def test_pairs_are_two_texts_a_row(serve: Callable[..., Server], pair_release: Path) -> None:
    pairs = [["goal", "the bank said a new rate"], ["atom " * 40, ""]]
    inputs = preprocess.run(preprocess.read(pair_release / "chain" / "teacher"), pairs)
    expected = Predictor(pair_release, threads=1).predict(inputs)["logits"]
    raw = np.array([[each.encode() for each in pair] for pair in pairs], object)
    server = serve([pair_release], largest=16)
    np.testing.assert_allclose(ask(server, "grpc", "text-raw", "raw", raw, "BYTES"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_number_out_of_the_vocabulary_is_the_clients_mistake_in_one_line(of_text: Server, protocol: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(of_text, protocol, "text", "input_ids", np.array([[-5, 99_999_999]]), "INT64")
    assert caught.value.status() in REFUSED
    assert caught.value.message() == "input 'input_ids': holds -5, expected numbers from 0 to 88"


def test_so_it_is_for_a_release_that_says_no_range(
    serve: Callable[..., Server], text_release: Path, resealed: Callable[..., Path], tmp_path: Path
) -> None:
    """Four requests that arrive together: the one fails alone."""
    server = serve([without_ranges(text_release, tmp_path / "release", resealed)], largest=4, delay=2_000_000)

    def said_of(number: int) -> str:
        try:
            ask(server, "grpc", "text", "input_ids", np.array([[2, number]]), "INT64")
        except InferenceServerException as error:
            return str(error.message())
        return ""

    assert said_of(7) == ""
    before = server.metric("nv_inference_exec_count", model="text", version="1")
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(said_of, (7, 99_999_999, 8, 9)))
    assert server.metric("nv_inference_exec_count", model="text", version="1") == before + 1
    assert [bool(each) for each in said] == [False, True, False, False]
    assert said[1].startswith("the model can't take these values: indices element out of data bounds")
    assert "\n" not in said[1]


def test_without_tokenizers_the_preprocessing_is_not_loaded_and_the_reason_is_told(
    text_release: Path, tmp_path: Path
) -> None:
    """Not ready, and then every text its client's mistake."""
    write([text_release], tmp_path / "repository", Options(backend="python"))
    hides = tmp_path / "repository" / "text-preprocess" / "1" / "python" / "tokenizers.py"
    hides.write_text('raise ModuleNotFoundError("No module named tokenizers")')
    server = Server(tmp_path / "repository", tmp_path)
    with pytest.raises(AssertionError):
        server.start()
    said = [line for line in server.log.read_text().splitlines() if "tokenizers is not installed" in line]
    assert any("failed to load 'text-preprocess'" in line for line in said), said
