"""What Triton's python backend runs: the model in ONNX Runtime, and the preprocessing before it.

This module travels with the repository (see ``vendoring``) and is imported by the ``model.py`` in a version's folder,
inside Triton's stub process: the only place where triton_python_backend_utils exists. One request's mistake is that
request's alone: those that arrived with it are answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from slimline import image_heads, plugins, preprocess
from slimline.errors import DataError, InputError, SlimlineError
from slimline.model_repository.names import RAW
from slimline.predictor import Arrays, Predictor

PIXELS = 2**24  # a larger image is refused before it is decoded
REQUEST_PIXELS = 2**26  # of all images of a request


def version_folder(args: dict[str, str]) -> Path:
    """Return the folder of the version that Triton is loading."""
    return Path(args["model_repository"], args["model_version"])


class Model:
    """One Predictor an instance. Requests that arrive together run as one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Verify the export that stands in the version's folder and open it."""
        threads = json.loads(args["model_config"])["parameters"]["threads"]["string_value"]
        with _told():
            self.predictor = Predictor(version_folder(args) / "export", "onnxruntime", int(threads))
        self._names = [spec["name"] for spec in self.predictor.signature["inputs"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request by its rows of the common batch."""
        answers: dict[int, Any] = {}
        accepted: dict[int, Arrays] = {}
        for index, request in enumerate(requests):
            try:
                accepted[index] = self._read(request)
            except Exception as error:  # noqa: BLE001  (Triton would send the traceback to the client)
                answers[index] = _failed(error)
        if accepted:
            answers |= self._attempt(accepted)
        return [answers[index] for index in range(len(requests))]

    def _attempt(self, accepted: dict[int, Arrays]) -> dict[int, Any]:
        """Run a batch; when it fails, run each request alone."""
        try:
            return self._run(accepted)
        except Exception as error:  # noqa: BLE001
            if len(accepted) == 1:
                return dict.fromkeys(accepted, _failed(error))
            return {index: self._attempt({index: inputs})[index] for index, inputs in accepted.items()}

    def _run(self, accepted: dict[int, Arrays]) -> dict[int, Any]:
        joined = {name: np.concatenate([inputs[name] for inputs in accepted.values()]) for name in self._names}
        outputs = self.predictor.runtime.run(joined)
        found, start = {}, 0
        for index, inputs in accepted.items():
            end = start + len(inputs[self._names[0]])
            found[index] = _response({name: array[start:end] for name, array in outputs.items()})
            start = end
        return found

    def _read(self, request: Any) -> Arrays:
        inputs = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._names}
        self.predictor.check(inputs)
        return inputs

    def finalize(self) -> None:
        """Give the session's memory back."""
        self.predictor.close()


class Preprocess:
    """The release's preprocess.json, from raw bytes to the model's inputs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the steps, import them, and let them read their files."""
        with _told():
            self._document = preprocess.read(version_folder(args))
            for step in self._document["steps"]:
                plugins.find("preprocess", step["op"], where=f"preprocess.json: {step['op']}", trust=())
            preprocess.load(self._document)
        self._pair = preprocess.takes_pairs(self._document)
        self._is_image = self._document["steps"][0]["op"] == "decode_image"
        if self._is_image:
            from PIL import Image

            Image.init()  # its decoders, which the first request would wait for

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the steps on each request's values."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            rows = triton.get_input_tensor_by_name(request, RAW).as_numpy()
            if self._is_image:
                _check_pixels(rows[:, 0])
                return _response(preprocess.run(self._document, list(rows[:, 0])))
            texts = [[_text(index, each) for each in row] for index, row in enumerate(rows)]
            return _response(preprocess.run(self._document, texts if self._pair else [text for (text,) in texts]))
        except Exception as error:  # noqa: BLE001
            return _failed(error)


def _text(index: int, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"text {index}: no UTF-8 ({error.reason} at byte {error.start})") from error


def _check_pixels(images: Iterable[bytes]) -> None:
    """Raise DataError for an image, or images together, that would take too much to decode."""
    total = 0
    for index, image in enumerate(images):
        try:
            found = image_heads.pixels(image)
        except DataError as error:
            raise DataError(f"image {index}: {error}") from error
        if found > PIXELS:
            raise DataError(f"image {index}: more than {PIXELS} pixels")
        total += found
    if total > REQUEST_PIXELS:
        raise DataError(f"images of more than {REQUEST_PIXELS} pixels together: send fewer at once")


def _response(outputs: Arrays) -> Any:
    return triton.InferenceResponse(
        [triton.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
    )


def _failed(error: Exception) -> Any:
    """Return the response that tells an error in one line."""
    if isinstance(error, InputError | DataError):
        told = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
    else:
        told = triton.TritonError(
            f"{type(error).__name__}: {' '.join(str(error).split())}", triton.TritonError.INTERNAL
        )
    return triton.InferenceResponse(error=told)


@contextmanager
def _told() -> Iterator[None]:
    """Say a mistake at loading in one line: what Triton logs and answers to the load request."""
    try:
        yield
    except SlimlineError as error:
        raise triton.TritonModelException(str(error)) from None
