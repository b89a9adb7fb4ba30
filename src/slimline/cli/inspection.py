"""Commands that look into one artifact, export or release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="An artifact, export or release directory.")]) -> None:
    """Verify a directory and say what it is."""
    from slimline import manifest

    print(f"{folder}: {manifest.verify(folder)}")
    for name in ("model.json", "facts.json", "card.json"):
        if (folder / name).is_file():
            document = manifest.read_json(folder / name)
            manifest.check_format(document, folder / name, 1)
            for key in (
                "stage",
                "task",
                "model",
                "params",
                "macs",
                "bytes",
                "last",
                "chain",
                "parent",
                "teacher",
                "seed",
            ):
                if key in document and not (name == "card.json" and key == "params"):
                    print(f"  {key}: {document[key]}")
            if (folder / "monitoring").is_dir():
                print(f"  monitoring: {', '.join(sorted(path.name for path in (folder / 'monitoring').iterdir()))}")
            if document.get("edits") is not None:
                edits = [each if isinstance(each, str) else each["method"] for each in document["edits"]]
                print(f"  edits: {', '.join(edits) or 'none'}")


@app.command()
def lint(
    model: Annotated[Path, typer.Argument(help="An ONNX file, or an export directory.")],
    target: Annotated[str, typer.Option("--for", help="tensorrt or onnxruntime.")],
) -> None:
    """Name each node that a runtime rejects or runs slowly.

    Those that it misreads too, and what to change. Exit 1 when there is one.
    """
    from slimline.lint import lint as run

    found = run(model, target)
    print("\n".join(map(str, found)) or f"{model}: nothing to change for {target}")
    if found:
        raise typer.Exit(1)


@app.command()
def sensitivity(
    artifact: Annotated[str, typer.Argument(help="A stage such as teacher, or the folder of an artifact.")],
    methods: Annotated[str, typer.Option(help="Only these, by name with commas between: linear,svd.")] = "",
    rows: Annotated[Optional[int], typer.Option(min=1, help="At most so many validation rows.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Folder for the table, the numbers and the heat map.")] = Path(
        "sensitivity"
    ),
) -> None:
    """Measure what compressing one layer costs and gains.

    One layer at a time; nothing is trained.
    """
    from slimline import layer_study, params

    settings = params.load()
    results = layer_study.run(artifact, settings, rows, [each for each in methods.split(",") if each])
    for line in layer_study.write(out, artifact, results, settings):
        print(line)
