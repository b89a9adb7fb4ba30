"""Clients that predict and send labels while something breaks, and remember what they were told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from queue import Empty, SimpleQueue
from typing import Any, Self

import httpx

from slimline.events import EventStore


class Witness:
    """``clients`` that each predict under ids of their own, and one that sends a label for every ``labels``-th answer.

    ``answered`` is {id: when its answer came}, ``acknowledged`` {id: label}; ``statuses`` counts by path and status,
    0 standing for a connection that broke; ``refusals`` holds (status, retry-after, text) of what wasn't 200.
    """

    def __init__(self, url: str, document: dict[str, Any], clients: int = 3, labels: int = 5) -> None:
        self.url, self.document, self.labels = url, document, labels
        self.answered: dict[str, float] = {}
        self.revisions: list[str] = []
        self.acknowledged: dict[str, str] = {}
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.refusals: set[tuple[int, str | None, str]] = set()
        self._known: SimpleQueue[str] = SimpleQueue()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._predict, args=(who,)) for who in range(clients)]
        self._threads.append(threading.Thread(target=self._label))

    def _predict(self, who: int) -> None:
        number = 0
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._over.is_set():
                number += 1
                name = f"{who}-{number}"
                answer = self._post(client, "/predict", {**self.document, "id": name})
                if answer is None:
                    time.sleep(0.05)
                    continue
                self.answered[name] = time.monotonic()
                self.revisions.append(answer["revision"])
                if number % self.labels == 0:
                    self._known.put(name)

    def _label(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._over.is_set():
                try:
                    name = self._known.get(timeout=0.1)
                except Empty:
                    continue
                label = name[-1]
                if self._post(client, "/feedback", {"id": name, "label": label}) is not None:
                    self.acknowledged[name] = label

    def _post(self, client: httpx.Client, path: str, document: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = client.post(path, json=document)
        except httpx.TransportError:
            self.statuses[path, 0] += 1
            return None
        self.statuses[path, answer.status_code] += 1
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
        self.refusals.add((answer.status_code, answer.headers.get("retry-after"), answer.json()["error"]))
        return None

    def predicted(self) -> set[int]:
        """Return the statuses that predictions were answered with."""
        return {status for path, status in self.statuses if path == "/predict"}

    def labelled(self) -> set[int]:
        """Return the statuses that labels were answered with."""
        return {status for path, status in self.statuses if path == "/feedback"}

    def lost(self, url: str) -> list[str]:
        """Return the ids answered that the store lacks, after holding it to every label that was acknowledged."""
        with EventStore.open(url) as events:
            for name, label in self.acknowledged.items():
                assert [each.label for each in events.history(name)] == [label], f"{name}: acknowledged and lost"
            kept = {each.id for each in events.predictions()}
        return sorted(self.answered.keys() - kept)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
