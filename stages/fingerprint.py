"""Write fingerprints/STAGE.json: a hash of all first-party code that each stage runs; each depends on its own.

DVC runs this at every ``dvc repro``, so it first asks whether anything it reads has changed at all.
"""

import sys
from pathlib import Path

from slimline import ending
from slimline.file_index import FILE, FileIndex

PARAMS = Path("params.yaml")
FOLDER = Path("fingerprints")


def main() -> None:
    """Write one file a stage of params.yaml and one for each measuring stage. Imports no torch."""
    index = FileIndex(FILE)
    read = [PARAMS, FOLDER, *map(Path, sys.path)]  # sys.path: a plug-in may be installed or removed
    if index.is_current(read):
        return
    from slimline import params, pipeline
    from slimline.manifest import as_json, write_text

    document = params.read(PARAMS)
    params.parse(document, PARAMS)
    pipeline.check_order(document, path=str(PARAMS))
    FOLDER.mkdir(exist_ok=True)
    exports = [f"export@{stage}" for stage in document["export"]["stages"]]
    stale = set(FOLDER.iterdir())
    for stage in [*pipeline.stages(document), *exports, *pipeline.MEASURES]:
        path, text = FOLDER / f"{stage}.json", as_json(pipeline.fingerprint(document, stage, index=index))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        stale.discard(path)
    for path in stale:
        path.unlink()
    index.save(also=[*read, *FOLDER.iterdir()])


if __name__ == "__main__":
    with ending.in_one_line():
        main()
