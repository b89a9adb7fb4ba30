"""How much memory compressing takes, against the model's own float32 bytes: encoders of up to 300M random weights.

python benchmarks/memory.py [--sizes 30M …] [--steps NAME …]: each step in a process of its own, which notes its
resident memory once everything is imported, builds the model, and ends with the kernel's peak (getrusage). The model
itself is in it, once. Calibration is ROWS rows of LENGTH tokens: activations of more rows come on top. Written to
metrics/memory.json; what isn't measured anew stays.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = Path("metrics/memory.json")
GOAL = 2.5
ROWS, LENGTH, CLASSES, WORDS = 8, 64, 8, 30522
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
    "MiniLM-L6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "30M": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536},
    "100M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "300M": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
SIGNATURE = {
    "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "length"]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", CLASSES]}],
}
MIB = 2**20


def methods() -> dict[str, Callable[[], Any]]:
    """Return what makes each method, by the step's name; their modules are imported here."""
    from slimline.factorization.ranks import Ratio
    from slimline.methods.drop_layers import DropLayers
    from slimline.methods.heads import Heads
    from slimline.methods.linear import Linear
    from slimline.methods.neurons import Neurons
    from slimline.methods.svd import Svd
    from slimline.methods.vocabulary import Vocabulary

    return {
        "distill: a third of the layers": lambda: DropLayers(keep={"body.encoder.layer": [0, 1]}),
        "prune: vocabulary": Vocabulary,
        "prune: heads, magnitude": lambda: Heads(importance="l2", ratio=0.25),
        "prune: heads, Taylor": lambda: Heads(ratio=0.25),
        "prune: neurons, magnitude": lambda: Neurons(importance="l2", ratio=0.5),
        "prune: neurons, Taylor": lambda: Neurons(ratio=0.5),
        "quantize: linear, static": lambda: Linear(ranges="static"),
        "quantize: linear, dynamic": lambda: Linear(ranges="dynamic"),
        "quantize: linear, the faster": lambda: Linear(ranges="auto"),
        "factorize: svd": lambda: Svd(rank=Ratio(0.25), refit=False),
    }


STEPS = (*methods(), "export: onnx")


def resident() -> int:
    """Return the bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def encoder(size: str, folder: Path) -> Any:
    """Return an encoder of random weights."""
    import torch
    from transformers import BertConfig

    from slimline.models.hf_encoder import HfEncoder

    torch.manual_seed(0)
    BertConfig(vocab_size=WORDS, pad_token_id=0, **SIZES[size]).save_pretrained(folder)
    return HfEncoder(str(folder), classes=CLASSES).eval()


def texts(ids: Any, labels: Any, folder: Path) -> Any:
    """Return the context of a task of random texts, whose tokenizer gives every third of the words."""
    from slimline.decisions import Decisions
    from slimline.method import Context
    from slimline.params import Target
    from slimline.task import Classification, Split

    tokenizer = folder / "tokenizer.json"
    words = {f"word{number}": number for number in range(0, WORDS, 3)}
    tokenizer.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": words}}), encoding="utf-8")

    class Texts(Classification):
        labels = tuple(f"label{number}" for number in range(CLASSES))

        def splits(self) -> dict[str, Split]:
            return {}

        def signature(self) -> dict[str, Any]:
            return SIGNATURE

        def preprocess(self) -> dict[str, Any]:
            return {"format": 1, "input": "input_ids", "steps": [{"op": "tokenize", "file": str(tokenizer)}]}

    rows = Split({"input_ids": ids}, labels, padding=("input_ids", 0))
    return Context(Texts(), rows, rows, Target(batch_sizes=[1, ROWS]), Decisions(None, {}), where="benchmark")


def take(size: str, step: str) -> dict[str, int]:
    """Run one step here and return its bytes: the model's, those resident before, and the most there were."""
    import onnxruntime  # noqa: F401
    import torch
    import transformers  # noqa: F401

    from slimline.export.onnx import export
    from slimline.method import compress

    made = methods()
    with tempfile.TemporaryDirectory() as scratch:
        small = torch.nn.Linear(2, CLASSES)  # building and exporting import what they need as they go
        one = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 2]}], "outputs": SIGNATURE["outputs"]}
        export(small, one, Path(scratch), {})
        encoder("tiny", Path(scratch))
        before = resident()
        model = encoder(size, Path(scratch))
        size_of = sum(each.numel() * each.element_size() for each in model.parameters())
        ids = torch.randint(1, WORDS, (ROWS, LENGTH))
        labels = torch.arange(ROWS) % CLASSES
        if step in made:
            context = texts(ids.numpy(), labels.numpy(), Path(scratch))
            compress(made[step](), model, lambda: [({"input_ids": ids}, labels)], context)
        else:
            export(model, SIGNATURE, Path(scratch), {})
    return {
        "params": sum(each.numel() for each in model.parameters()),
        "model": size_of,
        "before": before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Take the chosen steps on the chosen sizes, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["30M", "100M", "300M"])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--here", action="store_true", help="take the one step in this process and print its bytes")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(take(options.sizes[0], options.steps[0])))
        return
    from slimline import manifest
    from slimline.benchmark import machine

    for size in options.sizes:
        for step in options.steps:
            command = [sys.executable, __file__, "--here", "--sizes", size, "--steps", step]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            own = {**found, "ratio": (found["peak"] - found["before"]) / found["model"]}
            steps = manifest.read_json(TARGET)["steps"] if TARGET.is_file() else {}
            steps.setdefault(step, {})[size] = own
            print(f"{step}, {size}: {own['ratio']:.2f} × {found['model'] / MIB:.0f} MiB", flush=True)
            ordered = {each: steps[each] for each in STEPS if each in steps}
            facts = {"format": 1, "goal": GOAL, "rows": ROWS, "length": LENGTH, "machine": machine()}
            manifest.write_json(TARGET, {**facts, "steps": ordered})


if __name__ == "__main__":
    main()
