"""A remote Triton as a runtime: gRPC, one connection, the revision checked before answers are trusted.

``runtime="triton+grpc://HOST:PORT/MODEL"`` (``grpcs``: TLS) names server and model; ``?timeout=2&attempts=3&version=1``
may follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from slimline import manifest
from slimline.errors import InputError, ParamsError, RevisionError, UnavailableError

FORM = "triton+grpc://HOST:PORT/MODEL[?timeout=SECONDS&attempts=N&version=N]"
PAUSE = 0.05  # seconds before the second attempt, twice as long before each further one
RECHECK = 1.0  # seconds after which the server is asked again which revision it runs
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # a server that returns is found within a second: gRPC's own pauses grow to two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.enable_retries", 0),  # this module retries, within its deadline
]
Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """``timeout``: seconds for one call, all attempts together. ``version`` None: the newest of our revision."""

    host: str
    model: str
    tls: bool = False
    timeout: float = 5.0
    attempts: int = 3
    version: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``triton+grpc://…``. Raises ParamsError saying what is wrong with it."""
        parts = urlsplit(url)
        model = parts.path.strip("/")
        if parts.scheme not in {"triton+grpc", "triton+grpcs"} or not parts.netloc or not model or "/" in model:
            raise ParamsError(f"runtime {url}: no address of a model: write {FORM}")
        if parts.username is not None:
            raise ParamsError(f"runtime triton: {parts.hostname}: no user or password in an address: Triton has none")
        settings: dict[str, Any] = {}
        kinds: dict[str, Callable[[str], float]] = {"timeout": float, "attempts": int, "version": int}
        for key, text in parse_qsl(parts.query, keep_blank_values=True):
            try:
                settings[key] = kinds[key](text)
            except KeyError:
                raise ParamsError(f"runtime {url}: {key}: unknown; there are {', '.join(kinds)}") from None
            except ValueError:
                raise ParamsError(f"runtime {url}: {key}: {text!r} is no number") from None
            if not 0 < settings[key] < float("inf"):
                raise ParamsError(f"runtime {url}: {key}: {text} is not above 0")
        return cls(parts.netloc, model, parts.scheme == "triton+grpcs", **settings)

    def __str__(self) -> str:
        return f"triton at {self.host}: model {self.model}"


class Triton:
    """Runs one export on a remote Triton, whatever backend it has there. ``threads`` are the server's affair.

    The server's model must name our revision in its parameters, as repositories by ``slimline triton`` do, and its
    metadata must fit the signature: else RevisionError, before the first answer and whenever the server was away or a
    second has passed, so that a release exchanged behind our back is noticed. Raises UnavailableError when the server
    can't be reached, isn't ready or too slow; the next call tries anew.
    """

    def __init__(self, directory: Path, threads: int | None, url: str | None = None) -> None:  # noqa: ARG002
        try:
            from tritonclient import grpc
        except ModuleNotFoundError as error:
            raise ParamsError("runtime triton needs tritonclient: pip install 'slimline[triton]'") from error
        if not url:
            raise ParamsError(f"runtime triton: it needs an address: write {FORM}")
        self.address = Address.parse(url)
        self._grpc = grpc
        self._client = grpc.InferenceServerClient(self.address.host, ssl=self.address.tls, channel_args=CHANNEL)
        self._signature = manifest.read_json(directory / "signature.json")
        self._revisions = _revisions(directory)
        self._lock = Lock()
        self._trusted_until = 0.0
        self._config: Any = None
        self._call(self._trust)

    def run(self, inputs: Arrays) -> Arrays:
        """Return the server's outputs; a batch beyond what the model takes there is sent in parts."""
        rows = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, rows, self._largest or rows):
            part = {name: array[start : start + (self._largest or rows)] for name, array in inputs.items()}
            parts.append(self._call(partial(self._infer, part)))
        return (
            parts[0] if len(parts) == 1 else {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
        )

    def is_ready(self) -> bool:
        """Return whether the server runs our release, as the last call or else a short look says."""
        from tritonclient.utils import InferenceServerException

        try:
            self._trust(min(self.address.timeout, RECHECK))
        except (InferenceServerException, RevisionError):
            return False
        return True

    def close(self) -> None:
        self._client.close()

    def _infer(self, inputs: Arrays, seconds: float) -> Arrays:
        self._trust(seconds)
        sent = []
        for spec in self._signature["inputs"]:
            array = inputs[spec["name"]]
            sent.append(self._grpc.InferInput(spec["name"], list(array.shape), _datatype(spec["dtype"])))
            sent[-1].set_data_from_numpy(np.ascontiguousarray(array))
        wanted = [spec["name"] for spec in self._signature["outputs"]]
        found = self._client.infer(
            self.address.model, sent, self._version, [self._grpc.InferRequestedOutput(name) for name in wanted],
            client_timeout=seconds,
        )  # fmt: skip
        return {name: found.as_numpy(name) for name in wanted}

    def _trust(self, seconds: float) -> None:
        """Find the version that runs our revision, unless that was done lately and nothing was lost since."""
        if time.monotonic() < self._trusted_until:
            return
        with self._lock:
            if time.monotonic() < self._trusted_until:
                return
            config = self._client.get_model_config(self.address.model, client_timeout=seconds).config
            if config != self._config:
                version = _version(self.address, config.parameters, self._revisions)
                described = self._client.get_model_metadata(self.address.model, version, client_timeout=seconds)
                _check_metadata(self.address, described, self._signature)
                self._version, self._largest, self._config = version, int(config.max_batch_size), config
            self._trusted_until = time.monotonic() + RECHECK

    def _call(self, ask: Callable[[float], T]) -> T:
        """Return ``ask(seconds left)``, tried again while the server is away, until the deadline."""
        from tritonclient.utils import InferenceServerException

        deadline = time.monotonic() + self.address.timeout
        for attempt in range(1, self.address.attempts + 1):
            try:
                return ask(max(deadline - time.monotonic(), 0.001))
            except InferenceServerException as error:
                self._trusted_until = 0.0
                pause = PAUSE * 2 ** (attempt - 1)
                is_away = error.status() == "StatusCode.UNAVAILABLE"
                if not is_away or attempt == self.address.attempts or time.monotonic() + pause >= deadline:
                    raise _told(self.address, error) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _revisions(directory: Path) -> set[str]:
    """Return what the server's model may call itself: the release around an export; alone, the export."""
    release = directory.parent.parent
    if directory.parent.name == "chain" and (release / "card.json").is_file():
        return {manifest.digest(release)}
    return {manifest.digest(directory)}


def _version(address: Address, parameters: Any, revisions: set[str]) -> str:
    """Return the server's version that runs one of ``revisions``: the newest, or the one that was asked for."""
    runs = {
        int(key.partition(".")[2]): value.string_value
        for key, value in parameters.items()
        if key.startswith(("revision.", "export.")) and value.string_value in revisions
    }
    if address.version is not None:
        runs = {version: revision for version, revision in runs.items() if version == address.version}
    if not runs:
        others = {key.partition(".")[2]: value.string_value for key, value in parameters.items() if "revision." in key}
        found = ", ".join(f"version {version} is {revision}" for version, revision in sorted(others.items()))
        where = "" if address.version is None else f" in version {address.version}"
        raise RevisionError(
            f"{address}: it doesn't run {min(revisions)}{where} but {found or 'a model of unknown revision'}: write "
            "its repository from this release with 'slimline triton' and load it"
        )
    return str(max(runs))


def _check_metadata(address: Address, described: Any, signature: dict[str, Any]) -> None:
    for kind in ("inputs", "outputs"):
        found = {each.name: (each.datatype, [int(size) for size in each.shape]) for each in getattr(described, kind)}
        for spec in signature[kind]:
            shape = [-1 if isinstance(axis, str) else axis for axis in spec["shape"]]
            want = (_datatype(spec["dtype"]), shape)
            if found.get(spec["name"]) != want:
                raise RevisionError(
                    f"{address}: its {kind[:-1]} {spec['name']!r} is {found.get(spec['name'], 'missing')}, the "
                    f"release's {want}"
                )


def _datatype(dtype: str) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(np.dtype(dtype)))


def _told(address: Address, error: Any) -> Exception:
    """Return our error for tritonclient's, in one line."""
    message = " ".join(str(error.message()).split())
    status = str(error.status() or "").removeprefix("StatusCode.")
    if status == "INVALID_ARGUMENT":
        return InputError(message)  # goes to clients, who needn't know the host
    if status == "DEADLINE_EXCEEDED":
        return UnavailableError(f"{address}: no answer within {address.timeout:g} s")
    if status == "UNAVAILABLE":
        return UnavailableError(f"{address}: unavailable: {message}")
    return UnavailableError(f"{address}: {status or 'failed'}: {message}")
