"""Test-split rows sent to an endpoint one by one, steadily, and their labels some seconds later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import httpx
import numpy as np
from numpy.typing import NDArray

LABELS_EVERY = 1.0


@dataclass(frozen=True)
class Rows:
    """``inputs`` {name: [rows, …]}, ``targets`` [rows] class indices, and the classes' ``labels``."""

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[np.int64]
    labels: list[str]


class Sent(NamedTuple):
    """One request: when it was answered, by which revision (None: it failed), status, whether rightly, in how long."""

    time: float
    revision: str | None
    status: int
    right: bool
    seconds: float


class Traffic:
    """Sends ``rate`` requests a second in an order drawn by ``seed``; use it in a ``with``.

    ``rows`` may be exchanged while it runs. ``labelled`` of the requests get their label ``delay`` seconds later,
    through /feedback.
    """

    def __init__(self, url: str, rows: Rows, *, rate: float, labelled: float, delay: float, seed: int) -> None:
        self.rows = rows
        self.sent: list[Sent] = []
        self.labels_written = 0
        self._url, self._rate, self._share, self._delay = url, rate, labelled, delay
        self._rng = np.random.default_rng(seed)
        self._waiting: deque[tuple[float, str, str]] = deque()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._ask, self._tell)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def failed(self) -> int:
        """How many requests weren't answered with 200."""
        return sum(each.status != 200 for each in self.sent)

    def _ask(self) -> None:
        started, number = time.monotonic(), 0
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._over.is_set():
                self._over.wait(max(0.0, started + number / self._rate - time.monotonic()))
                rows, number = self.rows, number + 1
                row = int(self._rng.integers(len(rows.targets)))
                identity = f"demo-{number}"
                inputs = {name: array[row : row + 1].tolist() for name, array in rows.inputs.items()}
                label = rows.labels[int(rows.targets[row])]
                began = time.monotonic()
                try:
                    answer = client.post("/predict", json={"id": identity, "inputs": inputs})
                    status = answer.status_code
                    document = answer.json() if status == 200 else {}
                except httpx.HTTPError:
                    status, document = 0, {}
                right = bool(document) and document["predictions"][0]["label"] == label
                seconds = time.monotonic() - began
                self.sent.append(Sent(time.time(), document.get("revision"), status, right, seconds))
                if document and self._rng.random() < self._share:
                    self._waiting.append((time.monotonic() + self._delay, identity, label))

    def _tell(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._over.wait(LABELS_EVERY):
                due: list[dict[str, Any]] = []
                while self._waiting and self._waiting[0][0] <= time.monotonic() and len(due) < 1000:
                    _, identity, label = self._waiting.popleft()
                    due.append({"id": identity, "index": 0, "label": label})
                if due and client.post("/feedback", json={"labels": due}).status_code == 200:
                    self.labels_written += len(due)


def shifted(rows: Rows, *, blur: float, degrees: float) -> Rows:
    """Return the same rows out of focus (a Gaussian of ``blur`` pixels) and turned by ``degrees``: covariate shift."""
    from scipy import ndimage

    changed = {}
    for name, array in rows.inputs.items():
        axes = (array.ndim - 2, array.ndim - 1)
        turned = ndimage.rotate(array, degrees, axes=axes, reshape=False, order=1, mode="nearest")
        sigma = [0.0] * (array.ndim - 2) + [blur, blur]
        changed[name] = ndimage.gaussian_filter(turned, sigma).astype(array.dtype)
    return Rows(changed, rows.targets, rows.labels)


def reweighted(rows: Rows, shares: Mapping[int, float], seed: int) -> Rows:
    """Return rows drawn so that class ``index`` makes up ``shares[index]``, the others the rest: label shift."""
    rng = np.random.default_rng(seed)
    classes = np.unique(rows.targets)
    rest = (1 - sum(shares.values())) / (len(classes) - len(shares))
    weights = np.zeros(len(rows.targets))
    for each in classes:
        own = rows.targets == each
        weights[own] = shares.get(int(each), rest) / own.sum()
    chosen = rng.choice(len(rows.targets), len(rows.targets), p=weights)
    return Rows({name: array[chosen] for name, array in rows.inputs.items()}, rows.targets[chosen], rows.labels)
