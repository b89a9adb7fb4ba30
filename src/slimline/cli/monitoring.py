"""Commands that watch: the monitor as a process, and probes of any endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)
Store = Annotated[
    str,
    typer.Option(envvar="SLIMLINE_EVENT_STORE", help="sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"),
]


@app.command()
def monitor(
    store: Store = "sqlite:///events.db",
    deployment: Annotated[Path | None, typer.Option(help="A deployment folder, whose releases are watched.")] = None,
    release: Annotated[list[Path] | None, typer.Option(help="A release that answers; may be repeated.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="An endpoint whose /metrics counts errors; may be repeated.")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="A params.yaml whose section monitor holds; by default each release's own.")
    ] = None,
    state: Annotated[Path, typer.Option(help="Where it remembers: checkpoint, alarms.jsonl, history.")] = Path(
        ".slimline/monitor"
    ),
    host: Annotated[str, typer.Option(help="The address of /metrics, /standings and the webhook.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Their port; 0 takes a free one.")] = 3001,
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks into the store.")] = 1.0,
    undo: Annotated[Path, typer.Option(help="Where undo's journal is, as in slimline undo --folder.")] = Path(
        ".slimline/undo"
    ),
    token_file: Annotated[
        Path | None,
        typer.Option(help="The bearer token of POST /undo, Alertmanager's webhook; none: no webhook."),
    ] = None,
) -> None:
    """Watch what is served: read the event store, decide, raise alarms once, export metrics. Ends on SIGTERM."""
    from slimline.monitor import running

    running.run(
        running.Options(
            store, deployment, tuple(release or ()), params, state, host, port, interval, undo, token_file,
            tuple(endpoint or ()),
        )
    )  # fmt: skip
