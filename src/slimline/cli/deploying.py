"""Commands where releases run: pack, unpack, deploy, score. They need no git and no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def pack(
    release: Annotated[Path, typer.Argument(help="A release directory.")],
    target: Annotated[str, typer.Argument(help="FILE.tar, FILE.tar.gz, or a URL such as s3://bucket/FILE.tar.gz.")],
) -> None:
    """Write a release as one file.

    The same release gives the same bytes.
    """
    from slimline import archive

    print(f"{target}: {archive.pack(release, target)}")


@app.command()
def unpack(
    source: Annotated[str, typer.Argument(help="A packed file, or a URL of one or of a release directory.")],
    target: Annotated[Path, typer.Argument(help="The directory to write.")] = Path("release"),
    revision: Annotated[Optional[str], typer.Option(help="Refuse any other; its beginning is enough.")] = None,  # noqa: UP045
) -> None:
    """Bring a release to a directory, whole or not at all.

    Every file is verified.
    """
    from slimline import archive

    print(f"{target}: {archive.unpack(source, target, revision)}")


@app.command()
def deploy(
    source: Annotated[Optional[str], typer.Argument(help="A release: a directory, a packed file, or a URL.")] = None,  # noqa: UP045
    *,
    to: Annotated[Path, typer.Option(help="The deployment folder.")],
    revision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Refuse any other; without SOURCE: make this installed one current."),
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Make the one before current; no SOURCE.")] = False,
    keep: Annotated[Optional[int], typer.Option(min=1, help="Remove all but so many releases.")] = None,  # noqa: UP045
) -> None:
    """Make a release current in a deployment folder.

    Its digest and golden answers are checked first. One that fails its gate is deployed too, and so is a trial on
    few rows: each with a warning.
    """
    from slimline import gate
    from slimline.deployment import Deployment, short
    from slimline.errors import ReleaseError

    deployment = Deployment(to)
    if rollback + (source is not None) + (revision is not None and source is None) != 1:
        raise ReleaseError("deploy takes one of SOURCE, --rollback, and --revision of an installed release")
    if rollback:
        print(f"{to}: back to {short(deployment.rollback())}")
    else:
        found = deployment.find(revision or "") if source is None else deployment.install(source, revision)
        agreement = deployment.activate(found)
        print(f"{to}: {short(found)} is current" + (f"; {agreement}" if agreement else " already"))
    current = deployment.current()
    if current is not None:
        for warning in gate.warnings(to / "current"):
            print(f"warning: {short(current.name)} {warning}", file=sys.stderr)
    if keep is not None:
        for each in deployment.prune(keep):
            print(f"removed {short(each)}")


@app.command()
def predict(
    release: Annotated[Path, typer.Argument(help="A release, or an export directory.")],
    source: Annotated[Path, typer.Argument(help="Images in a folder, zip or tar; .csv, .tsv, .jsonl, .parquet.")],
    target: Annotated[Path, typer.Argument(help=".csv or .parquet.")],
    column: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Holds the raw input: text (twice for pairs), paths or bytes; without it, as in training."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows answered at once.")] = 64,
    threads: Annotated[Optional[int], typer.Option(min=1, help="The runtime's threads; its own choice.")] = None,  # noqa: UP045
) -> None:
    """Score every row of a file: label and probabilities.

    It needs no server, and shows a progress bar on a terminal.
    """
    from slimline import scoring

    hidden = not sys.stderr.isatty()
    with typer.progressbar(length=0, label=str(source), file=sys.stderr, hidden=hidden) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        rows = scoring.score(
            release, source, target, column=column or (), batch=batch, threads=threads, progress=progress
        )
    print(f"{target}: {rows:,} rows")
