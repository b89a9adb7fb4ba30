"""Batches on their way to the device that trains: to a GPU each is made while the step before it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Made = TypeVar("Made")


def made(items: Iterable[Item], make: Callable[[Item], Made], *, ahead: bool) -> Iterator[tuple[Item, Made]]:
    """Yield (item, ``make(item)``) in order; ``ahead``: a thread makes the next while the caller works with this one.

    On a CPU the thread would only take from the cores that train. What ``make`` raises is raised at that item's turn.
    """
    if not ahead:
        yield from ((item, make(item)) for item in items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = None
        for item in items:
            following = item, thread.submit(make, item)
            if coming is not None:
                yield coming[0], coming[1].result()
            coming = following
        if coming is not None:
            yield coming[0], coming[1].result()


def sent(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; to a GPU through pinned memory, without waiting for it to arrive."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def ask_for_determinism(device: torch.device) -> None:
    """Ask for GPU kernels that give the same bits each time; operators that have none say so in a warning.

    cuBLAS reads its variable when it starts. CPU kernels do so by themselves.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
