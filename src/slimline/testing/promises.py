"""What both checks are written in: a promise, and the one line that says how it was broken."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def require(kept: bool, broken: str) -> None:
    """Raise AssertionError with the line ``broken`` unless ``kept``."""
    if not kept:
        raise AssertionError(broken)


@contextmanager
def promise(broken: str, *, let: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn whatever the plug-in raises inside into an AssertionError; errors of class ``let`` pass."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        if isinstance(error, let):
            raise
        raise AssertionError(f"{broken}: {type(error).__name__}: {' '.join(str(error).split())}") from error


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Seed every global source of chance inside, and give back its state outside."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what a plug-in may use)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def fits(shape: Sequence[int], expected: Sequence[int | str], axes: dict[str, int]) -> bool:
    """Return whether ``shape`` is as a signature says; ``axes`` holds the sizes of its named axes, found or to find."""
    return len(shape) == len(expected) and all(
        size == (axes.setdefault(want, size) if isinstance(want, str) else want)
        for size, want in zip(shape, expected, strict=True)
    )
