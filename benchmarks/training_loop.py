"""What ``slimline.training.fit`` costs beside the loop that one would write by hand.

Both train the same fresh network on the same rows in the same order: forward, loss, backward, step, schedule, and
accuracy on validation rows after each epoch. ``fit`` also watches the loss, keeps the best weights
and saves its state to disk after each epoch. Rounds alternate, in an order of their own; ratios are paired within a
round, their interval is a bootstrap of the median over rounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slimline import benchmark, intervals, manifest
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.params import Training
from slimline.task import Split, Task
from slimline.tasks.fashion_mnist import FashionMnist
from slimline.training import State, fit
from slimline.training.loop import warmup_cosine
from slimline.training.losses.hard import Hard

OUT = Path("metrics/training_loop.json")
GOAL = 1.05
MODELS: dict[str, Callable[[], nn.Module]] = {
    "cnn, width 8": lambda: Cnn(width=8, classes=10),
    "resnet10, width 16": lambda: ResNet(depth=10, width=16, stem_stride=2, classes=10),
}


def by_hand(model: nn.Module, task: Task, train: Split, validation: Split, settings: Training, seed: int) -> None:
    """Train as a script would."""
    count, size = len(train), settings.batch_size
    images, labels = torch.from_numpy(train.inputs["image"]), torch.from_numpy(train.targets)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    total = -(-count // size) * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(settings, total))
    torch.manual_seed(seed)
    for _ in range(settings.epochs):
        model.train()
        for rows in torch.randperm(count).split(size):
            x = task.augment({"image": images[rows]}, torch.rand(len(rows), task.augment_draws))["image"]
            loss = F.cross_entropy(model(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(validation.inputs["image"]).split(500)
            answers = torch.cat([model(x).argmax(1) for x in parts])
        float((answers.numpy() == validation.targets).mean())


def rounds(
    make: Callable[[], nn.Module], task: Task, train: Split, validation: Split, settings: Training, count: int
) -> list[tuple[float, float]]:
    """Return (seconds of ``fit``, seconds by hand) a round."""
    pairs = []
    for number in range(count + 1):  # the first warms up
        seconds = {}
        for name in np.random.default_rng(number).permutation(["fit", "by hand"]):
            torch.manual_seed(number)
            model = make()
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                if name == "fit":
                    fit(
                        model, task, train, validation, settings, loss=Hard(), seed=number,
                        state=State({}, Path(folder)), where="params.yaml: teacher.training",
                    )  # fmt: skip
                else:
                    by_hand(model, task, train, validation, settings, number)
                seconds[str(name)] = time.perf_counter() - start
        pairs.append((seconds["fit"], seconds["by hand"]))
    return pairs[1:]


def summary(pairs: list[tuple[float, float]], steps: int) -> dict[str, Any]:
    """Return milliseconds a step of both, their ratio and its 95% interval."""
    times = np.array(pairs)
    ratios = times[:, 0] / times[:, 1]
    ours, bare = np.median(times, axis=0) / steps * 1e3
    return {
        "fit_ms": round(float(ours), 3),
        "by_hand_ms": round(float(bare), 3),
        "ratio": round(float(np.median(ratios)), 4),
        "ratio_ci": [round(each, 4) for each in intervals.median(ratios, 0.95)],
    }


def main() -> None:
    """Measure each model and write metrics/training_loop.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    task = FashionMnist()
    splits = task.splits()
    train, validation = splits["train"].head(options.rows), splits["validation"].head(500)
    settings = Training(
        epochs=options.epochs, batch_size=128, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4
    )
    steps = options.epochs * -(-len(train) // settings.batch_size)
    measured = {}
    for name, make in MODELS.items():
        measured[name] = summary(rounds(make, task, train, validation, settings, options.rounds), steps)
        print(name, measured[name], flush=True)
    document = {
        "format": 1, "machine": benchmark.machine() | {"torch": torch.__version__}, "threads": threads,
        "rows": len(train), "batch_size": settings.batch_size, "epochs": options.epochs, "rounds": options.rounds,
        "goal": GOAL, "models": measured,
    }  # fmt: skip
    manifest.write_json(options.out, document)


if __name__ == "__main__":
    main()
