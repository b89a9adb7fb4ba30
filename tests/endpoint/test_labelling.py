"""Labels that come together share a transaction, and nobody's fault is another's."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from slimline.endpoint import labelling
from slimline.endpoint.exchange import RefusedError
from slimline.endpoint.labelling import Labelling, Labels
from slimline.errors import EventError
from slimline.events import EventStore, Label, Outcome


class Store:
    """Remembers its transactions; the first waits until ``go``."""

    def __init__(self, reason: str = "invalid") -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.reason = reason

    def __call__(self, labels: Labels) -> list[Outcome]:
        assert self.go.wait(10)
        ids = [label["id"] for label in labels]
        self.batches.append(ids)
        if "bad" in ids:
            raise EventError("no label", self.reason)
        return [Outcome.NEW if id_ != "twice" else Outcome.DUPLICATE for id_ in ids]


def ask(store: Store, *requests: list[str]) -> list[Any]:
    """Send the first request alone and the others while it is being written; return what each was told."""

    async def run() -> list[Any]:
        made = Labelling(store)
        tasks = []
        for request in requests:
            tasks.append(asyncio.create_task(made.label([{"id": each} for each in request])))
            await asyncio.sleep(0.01)
        store.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        made.close()
        return results

    return asyncio.run(run())


def test_who_comes_while_the_disk_is_busy_goes_together() -> None:
    store = Store()
    told = ask(store, ["a"], ["b", "twice"], ["c"])
    assert store.batches == [["a"], ["b", "twice", "c"]]
    assert told == [[Outcome.NEW], [Outcome.NEW, Outcome.DUPLICATE], [Outcome.NEW]]


def test_a_label_that_no_store_can_take_fails_alone() -> None:
    told = ask(Store(), ["a"], ["b"], ["bad"], ["c"])
    assert [str(each) if isinstance(each, Exception) else each for each in told] == [
        [Outcome.NEW], [Outcome.NEW], "no label", [Outcome.NEW],
    ]  # fmt: skip


def test_while_the_store_is_away_all_are_told_after_one_try() -> None:
    store = Store("locked")
    told = ask(store, ["bad"], ["b"], ["bad"], ["c"])
    assert [isinstance(each, EventError) for each in told] == [True] * 4
    assert len(store.batches) == 2


def test_a_batch_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "LARGEST", 3)
    store = Store()
    ask(store, ["a"], ["b", "c"], ["d", "e"], ["f", "g", "h", "i"])
    assert store.batches == [["a"], ["b", "c"], ["d", "e"], ["f", "g", "h", "i"]]


def test_a_crowd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "MOST", 2)
    told = ask(Store(), ["a"], ["b"], ["c"])
    assert isinstance(told[2], RefusedError)
    assert (told[2].status, told[2].headers) == (503, {b"retry-after": b"1"})


def test_who_left_has_his_label_written_and_holds_up_nobody() -> None:
    store = Store()

    async def run() -> None:
        made = Labelling(store)
        tasks = [asyncio.create_task(made.label([{"id": each}])) for each in "abc"]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        store.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        made.close()
        assert results[2] == [Outcome.NEW]

    asyncio.run(run())
    assert [id_ for batch in store.batches for id_ in batch] == ["a", "b", "c"]


def test_corrections_that_come_at_once_are_kept_in_their_order(tmp_path: Any) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/events.db") as events:

        async def run() -> list[list[Outcome]]:
            made = Labelling(lambda labels: events.label([Label(**each) for each in labels]))
            asked = [made.label([{"id": "a", "index": 0, "label": str(number % 7)}]) for number in range(50)]
            results = await asyncio.gather(*asked)
            made.close()
            return list(results)

        told = asyncio.run(run())
        assert [each.label for each in events.history("a")] == [str(number % 7) for number in range(50)]
    assert told == [[Outcome.EARLY], *[[Outcome.CORRECTED]] * 49]
