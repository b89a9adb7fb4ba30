"""What a training step takes in float32 and bfloat16, and with channels last: which helps is the network's affair.

Forward, loss and backward on random rows: images of 3×64×64 in batches of 64, 32 texts of 64 tokens. The formats of a
network alternate, in an order of their own each round; ratios are paired within a round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline import benchmark, latency, manifest
from slimline.latency import Samples
from slimline.models.cnn import Cnn
from slimline.models.efficientnet_lite import EfficientNetLite
from slimline.models.hf_encoder import HfEncoder
from slimline.models.resnet import ResNet

OUT = Path("metrics/training_formats.json")
CLASSES, STEPS = 10, 2
PLAIN = "float32"
Make = Callable[[], nn.Module]
IMAGES: dict[str, Make] = {
    "efficientnet-lite": lambda: EfficientNetLite(classes=CLASSES),
    "resnet18": lambda: ResNet(depth=18, classes=CLASSES, channels=3),
    "cnn": lambda: Cnn(classes=CLASSES, channels=3),
}


def encoder() -> nn.Module:
    """Return a MiniLM of random weights."""
    from transformers import BertConfig

    with tempfile.TemporaryDirectory() as folder:
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        ).save_pretrained(folder)
        return HfEncoder(source=folder, pooling="mean", classes=CLASSES)


def formats(make: Make, rows: Tensor) -> dict[str, Callable[[], None]]:
    """Return {format: a training step}."""
    of_images = rows.ndim == 4
    found = {}
    for last, bf16 in product((False, True) if of_images else (False,), (False, True)):
        memory = torch.channels_last if last else torch.contiguous_format
        model = make().train().to(memory_format=memory) if of_images else make().train()
        inputs = rows.to(memory_format=memory) if of_images else rows
        name = ("bfloat16" if bf16 else PLAIN) + ", channels last" * last
        found[name] = _step(model, inputs, bf16=bf16)
    return found


def _step(model: nn.Module, inputs: Tensor, *, bf16: bool) -> Callable[[], None]:
    targets = torch.arange(len(inputs)) % CLASSES

    def step() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(inputs)
        nn.functional.cross_entropy(out.float(), targets).backward()  # type: ignore[no-untyped-call]

    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, Any]]:
    """Return {format: milliseconds a step, its speed-up over plain float32 and the interval of that}."""
    taken: dict[str, list[list[float]]] = {name: [] for name in steps}
    for number in range(rounds + 1):  # the first warms up
        for name in np.random.default_rng(number).permutation(list(steps)):
            seconds = []
            for _ in range(STEPS):
                start = time.perf_counter()
                steps[name]()
                seconds.append(time.perf_counter() - start)
            taken[str(name)].append(seconds)
    samples = {name: Samples(np.array(each[1:])) for name, each in taken.items()}
    found = {}
    for name, each in samples.items():
        ratio, interval = latency.speedup(samples[PLAIN], each, 0.95)
        found[name] = {"step_ms": round(1e3 * each.p50, 2), "speedup": ratio, "speedup_ci": interval}
    return found


def main() -> None:
    """Measure each network and write metrics/training_formats.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images, texts = torch.randn(64, 3, 64, 64), torch.randint(1000, 30_000, (32, 64))
    measured = {}
    for name, make in {**IMAGES, "hf-encoder, MiniLM's shape": encoder}.items():
        measured[name] = measure(formats(make, images if name in IMAGES else texts), options.rounds)
        for each, row in measured[name].items():
            print(f"{name}: {each}: {row['step_ms']} ms, {row['speedup']:.2f}x", flush=True)
    document = {
        "format": 1, "machine": benchmark.machine() | {"torch": torch.__version__}, "threads": threads,
        "rounds": options.rounds, "models": measured,
    }  # fmt: skip
    manifest.write_json(options.out, document)


if __name__ == "__main__":
    main()
