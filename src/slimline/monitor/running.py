"""``slimline monitor``: one process on one state folder, from its options to its last checkpoint."""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from slimline import locking, params
from slimline.errors import ParamsError, SlimlineError
from slimline.events import EventStore
from slimline.monitor import alertmanager, server, watched
from slimline.monitor.follower import Follower
from slimline.monitor.process import Process
from slimline.monitor.releases import Releases
from slimline.monitor.responding import Responder
from slimline.monitor.scraping import Scraper
from slimline.monitor.undo import Undo
from slimline.params import Monitor


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    store: str
    deployment: Path | None
    releases: tuple[Path, ...]
    params: Path | None
    folder: Path
    host: str
    port: int
    interval: float
    undo: Path
    token_file: Path | None
    endpoints: tuple[str, ...]


def run(options: Options) -> None:
    """Watch until SIGTERM or SIGINT. Raises a SlimlineError for options that can't be."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = None if options.params is None else params.load(options.params).monitor
    if chosen is not None:  # a mistake in it is told now, not at the first alarm
        params.configure("targets", chosen.undo.target, f"{options.params}: monitor.undo.target")
    releases = Releases(options.deployment, options.releases)
    # two monitors on one state folder would raise every alarm twice
    alone = locking.held(options.folder, 0.0, ParamsError, "another monitor runs on it; give this one another --state")
    with alone, EventStore.open(options.store, create=False) as store:
        follower = Follower(store, releases, options.folder, chosen)
        follower.check()
        responder = Responder(store, releases, options.undo, chosen)
        process = Process(
            follower, options.folder, responder=responder, scrapers=[Scraper(url).start() for url in options.endpoints],
            interval=options.interval,
        )  # fmt: skip
        posts = {} if options.token_file is None else {"/undo": webhook(options, chosen, responder)}
        with server.Server(options.host, options.port, pages(process), posts) as serving:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, lambda *_: process.stop())
            print(f"monitor: metrics at {serving.url}/metrics, state in {options.folder}", file=sys.stderr, flush=True)
            process.run()


def pages(process: Process) -> dict[str, server.Get]:
    """Return what GET finds where."""
    return {
        "/metrics": lambda: server.text(process.exporter.render()),
        "/standings": lambda: server.as_json(200, process.standings),
        "/livez": lambda: server.as_json(200, {"status": "alive"}),
    }


def webhook(options: Options, chosen: Monitor | None, responder: Responder) -> server.Post:
    """Return what answers Alertmanager's posts; the token is read for each, so that it may be exchanged."""
    token_file = options.token_file
    assert token_file is not None  # noqa: S101

    def answer(body: bytes, authorization: str | None) -> server.Reply:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
            release = responder.releases.current()
            own = watched.read("", "", shadow=False, release=release, chosen=chosen).params
            undo = Undo.configured(
                responder.policy(own.undo), options.undo, explain=responder.explain, where="monitor.undo"
            )
        except (OSError, SlimlineError) as error:
            return server.as_json(503, {"error": str(error)})
        return server.as_json(*alertmanager.receive(undo, body, authorization, token))

    return answer
