"""Asks any endpoint about rows: ours, Open Inference over HTTP (Triton, KServe), or a Triton over gRPC."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from slimline.answers import Answers
from slimline.errors import ParamsError, SlimlineError, UnavailableError
from slimline.monitor.watched import Watched
from slimline.predictor import Arrays, Predictor

FORMS = "http://HOST:PORT, http://HOST:PORT/v2/models/NAME or triton+grpc://HOST:PORT/NAME"
DATATYPES = {"float": "FP", "int": "INT", "uint": "UINT"}


class Answered(NamedTuple):
    """``outputs`` [rows, k], probabilities where the task has labels; ``seconds`` the request took."""

    outputs: NDArray[np.float32]
    seconds: float
    revision: str | None


class Asker(Protocol):
    """An endpoint."""

    def ask(self, inputs: Arrays) -> Answered:
        """Send rows. Raises UnavailableError when there is no good answer."""

    def close(self) -> None:
        """Give back the connection."""


def asker(url: str, watched: Watched, timeout: float, token_file: Path | None = None) -> Asker:
    """Return what asks ``url``, with the bearer token that ``token_file`` holds.

    Raises ParamsError for an address of no known form, and for a token that its server doesn't ask for.
    """
    if url.startswith(("triton+grpc://", "triton+grpcs://")):
        if token_file is not None:
            raise ParamsError(f"probe: --token-file: a Triton asks for no token; leave it out for {url}")
        return Grpc(url, watched)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParamsError(f"probe: {url}: no address: write {FORMS}")
    return (OpenInference if "/v2/models/" in parts.path else Own)(url, watched, timeout, token_file)


class Http:
    """One connection, kept open; a request that finds it closed opens another.

    The token is read for each request, so that it may be exchanged; an empty file is none.
    """

    def __init__(self, url: str, watched: Watched, timeout: float, token_file: Path | None = None) -> None:
        self.url, self.parts, self.timeout, self.token_file = url, urlsplit(url), timeout, token_file
        self.answers = Answers(watched.signature)
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, document: Mapping[str, Any]) -> tuple[Any, float]:
        """Return the JSON that was answered and the seconds it took."""
        body, headers = json.dumps(document).encode(), self._headers()
        started = time.perf_counter()
        for attempt in (1, 2):
            fresh = self._connection is None
            try:
                answer = self._ask(path, body, headers)
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

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise UnavailableError(f"--token-file: {self.token_file}: can't be read ({error})") from error
            if not token.isascii() or len(token.split()) > 1:
                raise UnavailableError(f"--token-file: {self.token_file}: one token is expected, without its scopes")
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
        return headers

    def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self.parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self.parts.netloc, timeout=self.timeout)
        self._connection.request("POST", path, body, dict(headers))
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
        if self.answers.labels:
            return [prediction["probabilities"][label] for label in self.answers.labels]
        return list(np.ravel(prediction["outputs"][self.answers.first]))


class OpenInference(Http):
    """``POST /v2/models/NAME/infer``: github.com/kserve/open-inference-protocol."""

    def ask(self, inputs: Arrays) -> Answered:
        first = self.answers.first
        sent = [
            {"name": name, "shape": list(array.shape), "datatype": _datatype(array), "data": array.ravel().tolist()}
            for name, array in inputs.items()
        ]
        path = f"{self.parts.path.removesuffix('/infer').rstrip('/')}/infer"
        document, seconds = self.post(path, {"inputs": sent, "outputs": [{"name": first}]})
        try:
            found = next(each for each in document["outputs"] if each["name"] == first)
            raw = np.array(found["data"], np.float32).reshape(found["shape"])
            outputs = self.answers.of({first: raw})[1]
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise UnavailableError(f"{self.url}: an answer of another shape ({error!r})") from error
        return Answered(outputs, seconds, document.get("parameters", {}).get("revision"))


class Grpc:
    """The runtime plug-in ``triton``, which checks the server's revision first."""

    def __init__(self, url: str, watched: Watched) -> None:
        self.url, self._watched, self._answers = url, watched, Answers(watched.signature)
        self._predictor: Predictor | None = None

    def ask(self, inputs: Arrays) -> Answered:
        try:
            if self._predictor is None:
                self._predictor = Predictor(str(self._watched.release), self.url)
            started = time.perf_counter()
            raw = self._predictor.predict(inputs)
        except ParamsError:
            raise
        except SlimlineError as error:
            raise UnavailableError(str(error)) from error
        seconds = time.perf_counter() - started
        return Answered(self._answers.of(raw)[1], seconds, self._predictor.revision)

    def close(self) -> None:
        if self._predictor is not None:
            self._predictor.close()


def _datatype(array: NDArray[Any]) -> str:
    if array.dtype == np.bool_:
        return "BOOL"
    kind = array.dtype.name.rstrip("0123456789")
    return f"{DATATYPES[kind]}{array.dtype.itemsize * 8}"
