"""Commands that watch: the monitor as a process, and probes of any endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimline.cli.options import Store, moment

app = typer.Typer(rich_markup_mode=None)


@app.command()
def monitor(
    store: Store,
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
    """Watch what is served, and raise alarms.

    It reads the event store, decides, raises each alarm once and exports metrics, until SIGTERM.
    """
    from slimline.monitor import running

    running.run(
        running.Options(
            store, deployment, tuple(release or ()), params, state, host, port, interval, undo, token_file,
            tuple(endpoint or ()),
        )
    )  # fmt: skip


@app.command()
def probe(
    url: Annotated[str, typer.Argument(help="http://HOST:PORT, …/v2/models/NAME, or triton+grpc://HOST:PORT/NAME.")],
    release: Annotated[Path, typer.Option(help="The release, or deployment folder, that answers there.")] = Path(
        "release"
    ),
    inputs: Annotated[
        Path | None, typer.Option(help="Labelled rows to send too: images, .csv, .parquet or .npz.")
    ] = None,
    labels: Annotated[str, typer.Option(help="The column, or array, of --inputs that holds the truth.")] = "label",
    params: Annotated[Path | None, typer.Option(help="A params.yaml whose section monitor holds.")] = None,
    variant: Annotated[str, typer.Option(help="The name in the metrics.")] = "probe",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 10.0,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Probe on and on, so many seconds apart, and serve /metrics.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address of /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 takes a free one.")] = 3002,
    token_file: Annotated[
        Path | None, typer.Option(help="The bearer token to ask with, of the scope predict; read for each request.")
    ] = None,
) -> None:
    """Send a release's golden rows to an endpoint.

    Exit 1 unless it answers as it did when the release was made.
    """
    from slimline.monitor import probe_command

    options = probe_command.Options(url, release, inputs, labels, params, variant, timeout, token_file)
    if every is not None:
        probe_command.serve(options, every, host, port)
    elif not probe_command.once(options):
        raise typer.Exit(1)


@app.command()
def window(
    file: Annotated[Path, typer.Argument(help="The page to write.")] = Path("window.html"),
    state: Annotated[Path, typer.Option(help="The monitor's folder.")] = Path(".slimline/monitor"),
    since: Annotated[str | None, typer.Option(help="2026-01-31T12:00+01:00 (UTC if not said), or 90m, 24h.")] = None,
    until: Annotated[str | None, typer.Option(help="The same; now.")] = None,
) -> None:
    """Write what the monitor saw as one HTML page.

    It shows a window of time: releases, alarms, latency, quality, drift.
    """
    from slimline.monitor import window as page

    start, end = moment("--since", since), moment("--until", until)
    page.write(state, file, float("-inf") if start is None else start, float("inf") if end is None else end)
    print(f"written: {file}")
