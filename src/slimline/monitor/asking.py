"""Asks any endpoint about rows: ours, Open Inference over HTTP (Triton, KServe), or a Triton over gRPC."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from slimline.errors import ParamsError, SlimlineError, UnavailableError
from slimline.monitor.watched import Watched
from slimline.predictor import Arrays, Predictor

FORMS = "http://HOST:PORT, http://HOST:PORT/v2/models/NAME or triton+grpc://HOST:PORT/NAME"
DATATYPES = {"float": "FP", "int": "INT", "uint": "UINT"}


class Answered(NamedTuple):
    """``outputs`` [rows, k], probabilities or scores, the largest being the answer; ``seconds`` the request took."""

    outputs: NDArray[np.float32]
    seconds: float
    revision: str | None


class Asker(Protocol):
    """An endpoint."""

    def ask(self, inputs: Arrays) -> Answered:
        """Send rows. Raises UnavailableError when there is no good answer."""

    def close(self) -> None:
        """Give back the connection."""


def asker(url: str, watched: Watched, timeout: float) -> Asker:
    """Return what asks ``url``. Raises ParamsError for an address of no known form."""
    if url.startswith(("triton+grpc://", "triton+grpcs://")):
        return Grpc(url, watched)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParamsError(f"probe: {url}: no address: write {FORMS}")
    return (OpenInference if "/v2/models/" in parts.path else Own)(url, watched, timeout)


class Http:
    """One connection, kept open; a request that finds it closed opens another."""

    def __init__(self, url: str, watched: Watched, timeout: float) -> None:
        self.url, self.parts, self.timeout = url, urlsplit(url), timeout
        self.signature = watched.signature
        self.labels = watched.labels
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, document: Mapping[str, Any]) -> tuple[Any, float]:
        """Return the JSON that was answered and the seconds it took."""
        body = json.dumps(document).encode()
        started = time.perf_counter()
        for attempt in (1, 2):
            fresh = self._connection is None
            try:
                answer = self._ask(path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2:  # a connection that was open may have been closed for being idle
                    raise UnavailableError(f"{self.url}: {type(error).__name__}: {error}") from error
            else:
                break
        try:
            return json.loads(answer), time.perf_counter() - started
        except ValueError as error:
            raise UnavailableError(f"{self.url}: the answer isn't JSON") from error

    def _ask(self, path: str, body: bytes) -> bytes:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self.parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self.parts.netloc, timeout=self.timeout)
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            said = " ".join(text[:200].decode(errors="replace").split())
            raise UnavailableError(f"{self.url}: HTTP {answer.status}: {said}")
        return text

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Own(Http):
    """``POST /predict``."""

    def ask(self, inputs: Arrays) -> Answered:
        path = f"{self.parts.path.removesuffix('/predict').rstrip('/')}/predict"
        document, seconds = self.post(path, {"inputs": {name: array.tolist() for name, array in inputs.items()}})
        try:
            rows = [self._row(each) for each in document["predictions"]]
            return Answered(np.array(rows, np.float32), seconds, document.get("revision"))
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"{self.url}: an answer of another shape ({error!r})") from error

    def _row(self, prediction: Mapping[str, Any]) -> list[float]:
        if self.labels:
            return [prediction["probabilities"][label] for label in self.labels]
        first = self.signature["outputs"][0]["name"]
        return list(np.ravel(prediction["outputs"][first]))


class OpenInference(Http):
    """``POST /v2/models/NAME/infer``: github.com/kserve/open-inference-protocol."""

    def ask(self, inputs: Arrays) -> Answered:
        first = self.signature["outputs"][0]["name"]
        sent = [
            {"name": name, "shape": list(array.shape), "datatype": _datatype(array), "data": array.ravel().tolist()}
            for name, array in inputs.items()
        ]
        path = f"{self.parts.path.removesuffix('/infer').rstrip('/')}/infer"
        document, seconds = self.post(path, {"inputs": sent, "outputs": [{"name": first}]})
        try:
            found = next(each for each in document["outputs"] if each["name"] == first)
            outputs = np.array(found["data"], np.float32).reshape(found["shape"])
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise UnavailableError(f"{self.url}: an answer of another shape ({error!r})") from error
        return Answered(outputs.reshape(len(outputs), -1), seconds, document.get("parameters", {}).get("revision"))


class Grpc:
    """The runtime plug-in ``triton``, which checks the server's revision first."""

    def __init__(self, url: str, watched: Watched) -> None:
        self.url, self._watched = url, watched
        self._predictor: Predictor | None = None

    def ask(self, inputs: Arrays) -> Answered:
        try:
            if self._predictor is None:
                self._predictor = Predictor(str(self._watched.release), self.url)
            started = time.perf_counter()
            outputs = next(iter(self._predictor.predict(inputs).values()))
        except ParamsError:
            raise
        except SlimlineError as error:
            raise UnavailableError(str(error)) from error
        seconds = time.perf_counter() - started
        return Answered(np.asarray(outputs, np.float32).reshape(len(outputs), -1), seconds, self._predictor.revision)

    def close(self) -> None:
        if self._predictor is not None:
            self._predictor.close()


def _datatype(array: NDArray[Any]) -> str:
    if array.dtype == np.bool_:
        return "BOOL"
    kind = array.dtype.name.rstrip("0123456789")
    return f"{DATATYPES[kind]}{array.dtype.itemsize * 8}"
