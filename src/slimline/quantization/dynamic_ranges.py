"""``ranges: auto``: are the inputs' ranges better fixed by calibration, or found for each batch as the model runs?

Static ranges need no pass over the data and fuse into integer kernels on both sides; dynamic ones follow every batch
and lose less where activations have outliers, as in transformers. Which is faster differs from target to target, so
both are exported and timed, interleaved, and the faster one is taken whose answers' loss on validation rows is within
``max_loss`` of the better one's. With ``target.runtime: auto`` each is timed on all runtimes that there are and counts
as on its fastest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slimline import measure, progress, runtime_choice
from slimline.method import Batches, Context, Method, Plan, compress

GAIN = 1.02  # below it the first of the two stays


def plan(methods: Mapping[str, Method], model: nn.Module, batches: Batches, context: Context) -> Plan:
    """Return the plan of that of ``methods`` {kind: method} which is taken; the choice is recorded and replayed.

    Each method's ``max_loss`` is how much higher its validation loss may be than the other's.
    """
    plans: dict[str, Plan] = {}

    def measured() -> dict[str, Any]:
        made = {}
        with progress.steps("static or dynamic ranges", len(methods) + 2) as begin:
            for kind, method in methods.items():
                begin(kind)
                made[kind], plans[kind] = compress(method, model, batches, context, share=True)
            with measure.exported(made, context.task.signature()) as folders:
                begin("validation loss")
                losses = {kind: _loss(folder, context) for kind, folder in folders.items()}
                begin("time")
                return _chosen(methods, folders, losses, context)

    choice: dict[str, Any] = context.decisions.choose("ranges", measured)
    taken = str(choice["taken"])
    found = plans.get(taken) or methods[taken].plan(model, batches, context)
    return replace(found, notes=[*found.notes, str(choice["why"])])


def _loss(folder: Path, context: Context) -> float:
    """Return the task's loss of an export's answers to validation rows: what is served decides."""
    rows = context.validation
    out = torch.from_numpy(measure.outputs(folder, rows, context.target))
    found = float(context.task.loss(out, torch.from_numpy(np.ascontiguousarray(rows.targets))))
    return found if math.isfinite(found) else math.inf


def _chosen(
    methods: Mapping[str, Method], folders: Mapping[str, Path], losses: Mapping[str, float], context: Context
) -> dict[str, Any]:
    samples, runtimes = measure.on_best(folders, context.task.signature(), context.calibration, context.target)
    times = {kind: {batch: each.p50 for batch, each in by_batch.items()} for kind, by_batch in samples.items()}
    first, second = methods
    gain = measure.gain(times[first], times[second])
    limit = min(losses.values()) + float(getattr(methods[first], "max_loss", 0.0))
    order = [second, first] if gain > GAIN else [first, second]
    taken = next(kind for kind in order if losses[kind] <= limit)
    why = (
        f"{taken} ranges: {second} ones run {gain:.2f}× as fast as {first} ones; the validation loss is "
        + " and ".join(f"{losses[kind]:.4f} ({kind})" for kind in methods)
    )
    if context.target.runtime == runtime_choice.AUTO:
        why += f" ({', '.join(f'{kind} on {runtime}' for kind, runtime in runtimes.items())})"
    return {"taken": taken, "why": why, "gain": gain, "losses": losses, "runtimes": runtimes}
