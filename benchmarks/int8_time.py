"""The time from one's own encoder and table to an int8 release: `slimline init --recipe int8`, then `dvc repro`.

python benchmarks/int8_time.py [--rows N]: the encoder has MiniLM-L6's shape and random weights, its head is fitted on
features of some rows; texts are made up, as long as news are, and their labels hang on words. All of that is made
before the clock starts. The commands run in an empty folder, on all cores, as a user would run them. Written to
metrics/int8.json; another number of rows than ROWS is printed only.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import benchmark, manifest, times

OUT = Path("metrics/int8.json")
ROWS, GOAL_S = 10_000, 600
MODEL, DATA = "my-encoder", "news.csv"
LABELS = tuple(f"topic {letter}" for letter in "abcdefgh")
VOCABULARY, LENGTH = 30522, 256
WORDS, SPREAD = 160, 0.85  # of a text: the median of 20 Newsgroups, and the deviation of its logarithm
OWN, OF_LABEL = 400, 0.4  # words of a label, and their share of a text
WRONG = 0.1  # of the rows have any label
FITTED = 1000  # rows
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
STAGES = ("teacher", "quantize", "export@teacher", "export@quantize", "latency", "benchmark", "report", "release")


def words() -> list[str]:
    """Return so many words that they, letters and special tokens make up the vocabulary."""
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    made = ("".join(parts) for parts in itertools.product(syllables, repeat=3))
    return list(itertools.islice(made, VOCABULARY - len(SPECIAL) - 52))


def write_tokenizer(folder: Path) -> None:
    """Write a WordPiece tokenizer of the words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*SPECIAL, *letters, *(f"##{each}" for each in letters), *words()]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def own_words() -> NDArray[np.int64]:
    """Return the numbers of each label's own words [labels × OWN]."""
    return np.random.default_rng(1).permutation(len(words()))[: OWN * len(LABELS)].reshape(len(LABELS), OWN)


def texts(count: int) -> list[tuple[str, str]]:
    """Return (text, label) pairs: words as frequent as Zipf has them, some of them the label's own."""
    rng = np.random.default_rng(0)
    known, own = np.array(words()), own_words()
    frequency = 1 / np.arange(1, len(known) + 1)
    lengths = np.clip(rng.lognormal(np.log(WORDS), SPREAD, count).astype(int), 5, 2000)
    rows = []
    for at, length in enumerate(lengths):
        label = at % len(LABELS)
        chosen = rng.choice(len(known), length, p=frequency / frequency.sum())
        chosen = np.where(rng.random(length) < OF_LABEL, rng.choice(own[label], length), chosen)
        given = rng.integers(len(LABELS)) if rng.random() < WRONG else label
        rows.append((" ".join(known[chosen]), LABELS[given]))
    return rows


def write_encoder(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Write a classifier of random weights whose last layer is fitted on ``rows`` by ridge regression.

    A label's own words have something in common in their embeddings, as those of a trained encoder would.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        pad_token_id=0, initializer_range=0.05, id2label=names, label2id={name: at for at, name in names.items()},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    table = model.bert.embeddings.word_embeddings.weight.data
    first = len(table) - len(words())
    for numbers in own_words():
        table[first + torch.from_numpy(numbers)] += table.std() * torch.randn(table.shape[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    features = []
    with torch.inference_mode():
        for start in range(0, len(rows), 50):
            found = tokenizer.encode_batch([text for text, _ in rows[start : start + 50]])
            ids, mask = (torch.tensor([getattr(row, key) for row in found]) for key in ("ids", "attention_mask"))
            features.append(model.bert(input_ids=ids, attention_mask=mask).pooler_output.double())
        x = torch.cat(features)
        centre = x.mean(0)
        x, y = x - centre, torch.eye(len(LABELS), dtype=torch.double)[[LABELS.index(label) for _, label in rows]]
        ridge = 1e-2 * x.square().sum() / x.shape[1] * torch.eye(x.shape[1], dtype=torch.double)
        weights = 10 * torch.linalg.solve(x.T @ x + ridge, x.T @ (y - y.mean(0)))
        model.classifier.weight.copy_(weights.T)
        model.classifier.bias.copy_(-centre @ weights)
    model.save_pretrained(folder)


def run(folder: Path, *command: str) -> None:
    """Run one of the environment's commands in the project; what it says goes to the terminal."""
    tool = Path(sys.executable).with_name(command[0])
    quiet = {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
    subprocess.run([tool, *command[1:]], cwd=folder, check=True, env=os.environ | quiet)


def processor_seconds() -> float:
    """Return what the processes started here have spent on all cores, which waiting for others isn't in."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(project: Path, count: int) -> dict[str, Any]:
    """Make model and data in ``project``, run the commands there and return seconds, by stage too, and quality."""
    rows = texts(count)
    with (project / DATA).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (project / MODEL).mkdir()
    write_tokenizer(project / MODEL)
    write_encoder(project / MODEL, rows[:FITTED])
    loads, spent, began = [os.getloadavg()[0]], processor_seconds(), time.time()
    author = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "start"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    run(project, "slimline", "init", "--model", MODEL, "--data", DATA, "--recipe", "int8")
    run(project, "dvc", "repro", "report", "release")
    took = time.time() - began
    loads.append(os.getloadavg()[0])
    measured = manifest.read_json(project / benchmark.FILE)
    stages = {name: times.read(name, project / times.FOLDER) for name in STAGES}
    return {
        "rows": count,
        "file_mb": round((project / DATA).stat().st_size / 2**20, 1),
        "seconds": {
            "report": round((project / "report/index.html").stat().st_mtime - began),
            "release": round(took),
        },
        "stages": {name: record["seconds"] for name, record in stages.items() if record},
        "accuracy": {name: row["accuracy"] for name, row in measured["stages"].items()},
        "bytes": {name: row["bytes"] for name, row in measured["stages"].items()},
        "speedup": measured["stages"]["quantize"]["speedup"],
        "processor_seconds": round(processor_seconds() - spent),
        "load": [round(each, 1) for each in loads],
    }


def main() -> None:
    """Run it once and write metrics/int8.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), options.rows)
    print(json.dumps(found, indent=1))
    if options.rows == ROWS:
        versions = {name: version(name) for name in ("torch", "transformers", "dvc")}
        facts = {"format": 1, "goal_s": GOAL_S, "machine": benchmark.machine() | versions}
        manifest.write_json(OUT, facts | found)


if __name__ == "__main__":
    main()
