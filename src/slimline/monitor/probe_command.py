"""``slimline probe``: one round as an exit code, or rounds without end as metrics."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from slimline import manifest, params
from slimline.answers import Answers
from slimline.deployment import release_in
from slimline.errors import DataError, ParamsError
from slimline.monitor import server, watched
from slimline.monitor.asking import asker
from slimline.monitor.metrics import Exporter
from slimline.monitor.probe import Probe, Rows
from slimline.monitor.standing import State
from slimline.monitor.watched import Watched


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    url: str
    release: Path
    inputs: Path | None
    labels: str
    params: Path | None
    variant: str
    timeout: float
    token_file: Path | None = None


def once(options: Options) -> bool:
    """Probe once, say what was found, and return whether all of it is good."""
    probe = made(options)
    standings = probe.round()
    probe.asker.close()
    for each in standings:
        print(f"{'ok' if each.state is State.OK else 'BAD':4}{each.signal}: {each.message}")
    if probe.revision is not None and probe.revision != probe.watched.revision:
        print(f"BAD revision: {probe.revision} answers, not {probe.watched.revision}")
        return False
    return all(each.state is State.OK for each in standings)


def serve(options: Options, every: float, host: str, port: int) -> None:
    """Probe every so many seconds and serve /metrics, until SIGTERM or SIGINT."""
    probe, exporter, over = made(options), Exporter(), threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: over.set())
    gets = {"/metrics": lambda: server.text(exporter.render())}
    with server.Server(host, port, gets, {}) as serving:
        print(f"probe: {options.url}, metrics at {serving.url}/metrics", file=sys.stderr, flush=True)
        while not over.is_set():
            exporter.put(probe.shown(probe.round()))
            over.wait(every)
    probe.asker.close()


def made(options: Options) -> Probe:
    """Return the probe. Raises ParamsError, ReleaseError or DataError for options that can't be."""
    chosen = None if options.params is None else params.load(options.params).monitor
    release = release_in(options.release)
    own = watched.read(manifest.digest(release), options.variant, shadow=False, release=release, chosen=chosen)
    return Probe(asker(options.url, own, options.timeout, options.token_file), own, _rows(options, own, release))


def _rows(options: Options, own: Watched, release: Path) -> Rows | None:
    if options.inputs is None:
        return None
    if Answers(own.signature).many:
        raise ParamsError(
            "probe: --inputs: rows of one label each are read, and this task's have any of several; leave it out"
        )
    from slimline.monitor.blame import inputs

    rows = inputs.read(release, options.inputs, options.labels)
    if rows.inputs is None or not rows.known.any():
        raise DataError(f"{options.inputs}: no row has a label in {options.labels!r}")
    return Rows(rows.inputs, rows.labels)
