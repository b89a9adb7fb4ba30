"""Write fingerprints/STAGE.json: a hash of all first-party code that each stage runs; each depends on its own."""

import sys
from pathlib import Path

import yaml

from slimline import pipeline
from slimline.errors import SlimlineError
from slimline.file_index import FILE, FileIndex
from slimline.manifest import write_json

FOLDER = Path("fingerprints")


def main() -> None:
    """Write one file a stage of params.yaml and one for each measuring stage. Imports no torch."""
    with Path("params.yaml").open(encoding="utf-8") as file:
        document = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (both are safe)
    FOLDER.mkdir(exist_ok=True)
    index = FileIndex(FILE)
    exports = [f"export@{stage}" for stage in document["export"]["stages"]]
    for stage in [*pipeline.stages(document), *exports, *pipeline.MEASURES]:
        write_json(FOLDER / f"{stage}.json", pipeline.fingerprint(document, stage, index=index))
    index.save()


if __name__ == "__main__":
    try:
        main()
    except SlimlineError as error:
        sys.exit(f"error: {error}")
