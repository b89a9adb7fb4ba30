"""Memory that a user's own rows take: the peak of a process that prepares them and then reads every training batch.

Texts are written as CSV and Parquet, images as PNG into a zip, at run time. Each size is prepared by a fresh process;
its peak is the kernel's high-water mark less what the same process has before it looks at the data. Mapped pages of the
prepared rows count in it while they are in use, and the kernel takes them back at need: ``anonymous`` is the rest.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from slimline import benchmark, manifest

OUT = Path("metrics/own_data.json")
WORDS = [f"{a}{b}{c}" for a in ("ba", "do", "ki", "lu") for b in ("na", "ro", "ti", "su", "me") for c in ("", "n", "s")]
LABELS = ("a", "b", "c", "d")
LENGTH = 32
SIDE = 16
READ = """
import json, sys, threading, time
from pathlib import Path

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

import numpy, torch
from slimline.tasks import labelled_images, text
kind, args = sys.argv[1], json.loads(sys.argv[2])
before, anonymous, done = (status("VmHWM"), status("RssAnon")), [], False

def watch():
    while not done:
        anonymous.append(status("RssAnon"))
        time.sleep(0.02)

watching = threading.Thread(target=watch)
watching.start()
start = time.monotonic()
task = text.text(**args) if kind == "text" else labelled_images.images(**args)
split = task.splits()["train"]
for at in range(0, len(split), 128):
    split[slice(at, at + 128)]
done = True
watching.join()
print(json.dumps({"rows": len(split), "peak_mb": round(status("VmHWM") - before[0], 1),
                  "anonymous_mb": round(max(anonymous) - before[1], 1),
                  "seconds": round(time.monotonic() - start, 1)}))
"""


def write_texts(path: Path, count: int) -> None:
    """Write so many texts of 8 to 40 words, the label among them."""
    chance = random.Random(count)  # noqa: S311  (no secret)
    rows = ((" ".join(chance.choices(WORDS, k=chance.randint(8, 40))), LABELS[at % 4]) for at in range(count))
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(rows)
        return
    import pyarrow as pa
    from pyarrow import parquet

    found = list(rows)
    table = pa.table({"text": [text for text, _ in found], "label": [label for _, label in found]})
    parquet.write_table(table, path, row_group_size=10_000)


def write_tokenizer(path: Path) -> None:
    """Write a WordPiece tokenizer over the words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def write_images(path: Path, count: int) -> None:
    """Write so many PNGs of noise in class folders of a zip."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(count)
    with zipfile.ZipFile(path, "w") as archive:
        for at in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(buffer, "PNG", compress_level=1)
            archive.writestr(f"{LABELS[at % 4]}/{at:06}.png", buffer.getvalue())


def measure(kind: str, args: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return rows, peak and anonymous memory in MiB, and seconds of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", READ, kind, json.dumps(args)], cwd=folder, check=True, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure each kind at two sizes, ten times apart, and write metrics/own_data.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=30_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", choices=("csv", "parquet", "zip"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    kinds = manifest.read_json(options.out)["kinds"] if options.only and options.out.is_file() else {}
    for suffix, base in (("csv", options.texts), ("parquet", options.texts), ("zip", options.images)):
        if options.only in {None, suffix}:
            sizes = []
            for count in (base, 10 * base):
                with tempfile.TemporaryDirectory() as scratch:
                    folder = Path(scratch)
                    data = folder / f"rows.{suffix}"
                    if suffix == "zip":
                        write_images(data, count)
                        found = measure("images", {"data": data.name, "labels": LABELS, "size": [SIDE, SIDE]}, folder)
                    else:
                        write_texts(data, count)
                        write_tokenizer(folder / "tokenizer.json")
                        own = {"tokenizer": "tokenizer.json", "max_length": LENGTH}
                        found = measure("text", {"data": data.name, "labels": LABELS, **own}, folder)
                    sizes.append({"given": count, "file_mb": round(data.stat().st_size / 2**20, 1), **found})
                print(suffix, sizes[-1], flush=True)
            more = sizes[1]["given"] - sizes[0]["given"]
            slope = (sizes[1]["anonymous_mb"] - sizes[0]["anonymous_mb"]) * 2**20 / more
            kinds[suffix] = {"sizes": sizes, "bytes_a_row": round(slope)}
    manifest.write_json(options.out, {"format": 1, "machine": benchmark.machine(), "kinds": kinds})


if __name__ == "__main__":
    main()
