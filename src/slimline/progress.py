"""What a stage is at, for whoever watches: a bar on a terminal, nothing in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each of ``total`` steps as it begins; the bar shows it at once."""
    with tqdm(total=total, desc=title, unit="step", disable=None) as bar:
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.n, begun = begun, begun + 1
            bar.set_postfix_str(name)

        yield begin
        bar.n = begun
        bar.refresh()


@contextmanager
def rounds(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` rounds of a measurement."""
    with tqdm(total=total, desc=title, unit="round", leave=False, disable=None) as bar:

        def done() -> None:
            bar.update()

        yield done
