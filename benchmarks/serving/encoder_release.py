"""A release of MiniLM's size: 6 layers of width 384 over 64 tokens, 30,522 words, random weights, two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from slimline import benchmark, latency, manifest
from slimline.export.onnx import export
from slimline.predictor import Predictor

WORDS, WIDTH, LENGTH, LAYERS = 30_522, 384, 64, 6
BATCHES = [1, 8, 16]
SIGNATURE = {
    "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", LENGTH]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
    "labels": ["no", "yes"],
}


class Encoder(nn.Module):
    """Embeddings, a Transformer encoder, the mean over tokens, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(self.embedding(input_ids))
        logits: Tensor = self.head(hidden.mean(1))
        return logits


def build(target: Path) -> Path:
    """Write the release to ``target`` unless it stands there, and return it."""
    if (target / "card.json").is_file():
        return target
    torch.manual_seed(0)
    rows = {"input_ids": np.random.default_rng(0).integers(0, WORDS, (16, LENGTH), dtype=np.int64)}
    stage = target.parent / "encoder"
    with manifest.sealed(stage) as scratch:
        export(Encoder().eval(), SIGNATURE, scratch, {})
        manifest.write_json(scratch / "signature.json", SIGNATURE)
        manifest.write_json(scratch / "preprocess.json", {"format": 1, "input": "input_ids", "steps": []})
    predictor = Predictor(stage, threads=1)
    answers = benchmark.outputs(predictor, rows)
    batches = {size: {"input_ids": rows["input_ids"][:size]} for size in BATCHES}
    samples = latency.measure({"teacher": predictor.predict}, batches, rounds=3, repeats=3)["teacher"]
    predictor.close()
    times = {str(size): each.percentiles_ms() for size, each in samples.items()}
    measured = {
        "machine": benchmark.machine(), "primary": "accuracy",
        "stages": {"teacher": {"threads": 1, "latency_ms": times}},
        "target": {"runtime": "onnxruntime", "threads": 1, "batch_sizes": BATCHES},
    }  # fmt: skip
    with manifest.sealed(target) as scratch:
        (scratch / "chain").mkdir()
        stage.rename(scratch / "chain" / "teacher")
        named = {f"input/{name}": array for name, array in rows.items()}
        np.savez_compressed(scratch / "golden.npz", **{"output/teacher": answers}, **named)
        manifest.write_json(
            scratch / "card.json",
            {"format": 1, "task": {"name": "encoder", "args": {}}, "last": "teacher", "chain": ["teacher"],
             "benchmark": measured, "params": {}},
        )  # fmt: skip
    return target


if __name__ == "__main__":
    print(build(Path(".slimline/bench/encoder-release")))
