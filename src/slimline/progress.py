"""What a stage is at, for whoever watches: a bar on a terminal, in a log a plain line each ``EVERY_S`` seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

EVERY_S = 30.0
T = TypeVar("T")


@contextmanager
def steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each of ``total`` steps as it begins; the bar shows it at once."""
    with tqdm(total=total, desc=title, unit="step", disable=None) as bar:
        begun, at = 0, ""

        def begin(name: str) -> None:
            nonlocal begun, at
            bar.n, begun, at = begun, begun + 1, name
            bar.set_postfix_str(name)

        with told(lambda: f"{title}: step {begun} of {total}, {at}", log=bool(bar.disable)):
            yield begin
        bar.n = begun
        bar.refresh()


@contextmanager
def rounds(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` rounds of a measurement."""
    with tqdm(total=total, desc=title, unit="round", leave=False, disable=None) as bar:
        count = 0

        def done() -> None:
            nonlocal count
            count += 1
            bar.update()

        with told(lambda: f"{title}: {count} of {total} rounds done", log=bool(bar.disable)):
            yield done


def each(items: Iterable[T], title: str, total: int, unit: str) -> Iterator[T]:
    """Yield the items, whose count is shown."""
    with tqdm(total=total, desc=title, unit=unit, leave=False, disable=None) as bar:
        count = 0
        with told(lambda: f"{title}: {count} of {total} {unit}s done", log=bool(bar.disable)):
            for item in items:
                yield item
                count += 1
                bar.update()


@contextmanager
def told(line: Callable[[], str], *, log: bool) -> Iterator[None]:
    """Print ``line()`` each ``EVERY_S`` seconds while the block lasts, where there is a ``log`` to read and no bar.

    Of blocks in each other the inner one speaks.
    """
    if not log:
        yield
        return
    began, over, out = time.monotonic(), threading.Event(), sys.stdout

    def tell() -> None:
        while not over.wait(EVERY_S):
            if _open[-1] is over:
                print(f"{line()} ({time.monotonic() - began:.0f} s)", file=out, flush=True)

    _open.append(over)
    watcher = threading.Thread(target=tell, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        _open.remove(over)


_open: list[threading.Event] = []
