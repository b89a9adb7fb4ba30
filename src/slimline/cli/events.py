"""Commands on the event store: labels that come later, what is kept, what is deleted."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Optional

import typer

from slimline.cli.options import Store, moment

labels_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What was true, told later.")
events_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The store of predictions and labels.")
app = typer.Typer(rich_markup_mode=None)
app.add_typer(labels_app, name="labels")
app.add_typer(events_app, name="events")


@labels_app.command(name="import")
def import_labels(
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet with the columns id, label and maybe index.")
    ],
    store: Store,
    kind: Annotated[
        str, typer.Option("--as", help="What label holds: text, number, json; auto is the file's own type.")
    ] = "auto",
) -> None:
    """Write a file of labels by the callers' ids; the last label for a row holds, those before it are kept."""
    from slimline.events import EventStore, label_files

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} labels", end="", file=sys.stderr, flush=True)

    shown = progress if sys.stderr.isatty() else None
    with EventStore.open(store, create=False) as opened:
        counts = label_files.load(opened, file, kind, shown)
    if shown is not None:
        print(file=sys.stderr)
    print(f"{sum(counts.values())} labels: {', '.join(f'{n} {outcome}' for outcome, n in counts.items() if n)}")


@events_app.command()
def purge(
    store: Store,
    before: Annotated[
        str | None,
        typer.Option(help="Delete what is older: 2026-01-31T12:00+01:00 (UTC if not said), or 24h, 30d."),
    ] = None,
    id: Annotated[Optional[str], typer.Option(help="Delete all under one id.")] = None,  # noqa: A002, UP045
) -> None:
    """Delete predictions and their labels for good."""
    from slimline.events import EventStore

    oldest = moment("--before", before)
    with EventStore.open(store, create=False) as opened:
        deleted = opened.purge(before=oldest, id=id)
    print(f"deleted {deleted['predictions']} predictions and {deleted['labels']} labels")


@events_app.command(name="show")
def show_events(store: Store) -> None:
    """Say how much the store holds."""
    from slimline.events import EventStore

    with EventStore.open(store, create=False) as opened:
        counts, sources = opened.counts(), opened.sources()
    print(f"{counts['predictions']} predictions, {counts['labels']} labels, {counts['early']} of them early")
    for revision, variant, shadow, number, first, last in sources:
        since, until = (datetime.fromtimestamp(each, UTC).isoformat(timespec="seconds") for each in (first, last))
        print(f"  {variant}{' (shadow)' if shadow else ''} {revision}: {number} from {since} to {until}")
