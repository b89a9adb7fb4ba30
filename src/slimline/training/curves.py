"""A training's curves: each epoch's numbers through DVCLive into ``curves/STAGE``, and a line for who waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimline.training.loop import Epoch
from slimline.training.processes import processes

FOLDER = Path("curves")


class Curves:
    """Logs every epoch to ``live`` (None: nowhere), and prints a line on each that this run trains."""

    def __init__(self, stage: str, live: Any = None) -> None:
        self._stage, self._live = stage, live
        self._before = 0
        self._started = time.monotonic()

    def resumed(self, epochs: int) -> None:
        """Say that so many epochs were done before this run."""
        self._before = epochs
        if self._live is not None:
            print(f"{self._stage}: {epochs} {'epoch was' if epochs == 1 else 'epochs were'} done before", flush=True)

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch: of those done before too, since DVC removes a stage's curves before it runs."""
        live = self._live
        if live is None:
            return
        live.log_metric("loss", epoch.loss)
        live.log_metric("lr", epoch.lr)
        for name, value in epoch.validation.items():
            live.log_metric(f"validation/{name}", value)
        if epoch.validation_loss is not None:
            live.log_metric("validation/loss", epoch.validation_loss)
        live.next_step()
        if epoch.epoch >= self._before:
            shown = " ".join(f"{name}={value:.4f}" for name, value in epoch.validation.items())
            said = f"{self._stage}: epoch {epoch.epoch + 1} loss={epoch.loss:.4f} {shown}"
            print(f"{said} ({time.monotonic() - self._started:.0f} s in all)", flush=True)


@contextmanager
def curves(stage: str, *, resume: bool = False) -> Iterator[Curves]:
    """Yield what logs a stage's training; only the first process writes.

    With ``resume`` the curves of the stage's earlier training go on.
    """
    if not processes().is_main_process:
        yield Curves(stage)
        return
    from dvclive import Live

    folder = str(FOLDER / stage)
    with Live(folder, resume=resume, dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False) as live:
        yield Curves(stage, live)
