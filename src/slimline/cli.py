"""The ``slimline`` command. Exit 0: fine; 1: a verdict against you; 2: bad input, said in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from slimline.errors import SlimlineError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Makes trained PyTorch models small and fast in a DVC pipeline, and measures what each stage gained and cost.",
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A git repository; DVC is set up when it isn't yet.")] = Path(),
    task: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    recipe: Annotated[
        str, typer.Option(help="int8 trains no student; small leaves out factorize; smallest runs all.")
    ] = "smallest",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Try the chain on so many rows first.")] = None,  # noqa: UP045
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Only show how the laid-out files differ from this version's.")
    ] = False,
) -> None:
    """Lay dvc.yaml, params.yaml and stages/ into a repository."""
    from slimline import project

    if update:
        print("\n".join(project.differences(folder)) or "no differences")
        return
    for line in project.lay_out(folder, task=task, recipe=recipe, limit=limit):
        print(line)


@app.command()
def check() -> None:
    """Validate params.yaml, stage order, plug-ins, data and models before anything trains."""
    from slimline.check import check as run

    print("\n".join(run()))


@app.command()
def gate(
    release: Annotated[Path | None, typer.Option(help="Judge this release instead of metrics/benchmark.json.")] = None,
) -> None:
    """Print the verdict of the budget with its intervals; exit 1 when a line fails."""
    from slimline import benchmark, manifest, params, pipeline
    from slimline.gate import judge, lines
    from slimline.release import FORMAT

    if release is not None:
        manifest.verify(release)
        card = manifest.read_json(release / "card.json")
        manifest.check_format(card, release / "card.json", FORMAT)
        measured, document, where = card["benchmark"], card["params"], f"{release}/card.json: budget"
    else:
        measured, document, where = manifest.read_json(benchmark.FILE), params.read(), f"{params.FILE}: budget"
    budget = params.parse(document).budget
    pipeline.check_order(document)
    checks = judge(budget, measured, pipeline.last(document), where=where)
    print("\n".join(lines(checks)) or "the budget asks for nothing")
    if not all(each.ok for each in checks):
        raise typer.Exit(1)


@app.command()
def lint(
    model: Annotated[Path, typer.Argument(help="An ONNX file, or an export directory.")],
    target: Annotated[str, typer.Option("--for", help="tensorrt or onnxruntime.")],
) -> None:
    """Name each node that a runtime rejects, misreads or runs slowly, and what to change; exit 1 when there is one."""
    from slimline.lint import lint as run

    found = run(model, target)
    print("\n".join(map(str, found)) or f"{model}: nothing to change for {target}")
    if found:
        raise typer.Exit(1)


@app.command(name="plugins")
def list_plugins(kind: Annotated[Optional[str], typer.Argument(help="tasks, models, methods, …")] = None) -> None:  # noqa: UP045
    """List every plug-in and the distribution it comes from."""
    from slimline import plugins

    if kind is not None and kind not in plugins.KINDS:
        from slimline.errors import PluginError, near_miss

        raise PluginError(
            f"{kind!r} is no kind of plug-in.{near_miss(kind, list(plugins.KINDS))} Kinds: {', '.join(plugins.KINDS)}"
        )
    rows = plugins.offers(kind)
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        columns = "  ".join(row[column].ljust(widths[column]) for column in range(3))
        print(f"{columns}  {row.distribution} {row.version}")


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
            if document.get("edits") is not None:
                edits = [each if isinstance(each, str) else each["method"] for each in document["edits"]]
                print(f"  edits: {', '.join(edits) or 'none'}")


@app.command()
def sensitivity(
    artifact: Annotated[str, typer.Argument(help="A stage such as teacher, or the folder of an artifact.")],
    methods: Annotated[str, typer.Option(help="Only these, by name with commas between: linear,svd.")] = "",
    rows: Annotated[Optional[int], typer.Option(min=1, help="At most so many validation rows.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Folder for the table, the numbers and the heat map.")] = Path(
        "sensitivity"
    ),
) -> None:
    """Compress one layer at a time and measure what it costs and gains; nothing is trained."""
    from slimline import layer_study, params

    settings = params.load()
    results = layer_study.run(artifact, settings, rows, [each for each in methods.split(",") if each])
    for line in layer_study.write(out, artifact, results, settings):
        print(line)


def main() -> None:
    """Run the command line; a SlimlineError ends it as one line on stderr and exit 2."""
    try:
        app()
    except SlimlineError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
