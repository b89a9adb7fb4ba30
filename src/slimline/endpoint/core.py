"""What every way to ask shares: choose the variant, run the batch, count, record, mirror."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.endpoint.auth import Tokens
from slimline.endpoint.cycles import RARELY
from slimline.endpoint.exchange import Exchange, RefusedError, Reply, Room, one_line
from slimline.endpoint.labelling import Labelling
from slimline.endpoint.loaded import Loaded
from slimline.endpoint.metrics import Metrics
from slimline.endpoint.recording import Recorder
from slimline.endpoint.settings import Settings
from slimline.endpoint.variants import Described, Variant, Variants, describe
from slimline.errors import SlimlineError
from slimline.predictor import Arrays

RETRY = {b"retry-after": b"1"}
MAX_MIRRORED = 256
BACKGROUND_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answered:
    """One request's outcome and who gave it: raw outputs, a label a row (or None), rows × probabilities."""

    id: str
    live: Loaded
    outputs: Arrays
    labels: list[str] | None
    probabilities: NDArray[np.float32]


class Admission:
    """A request that is in progress within the block, and the room that its body takes."""

    __slots__ = ("_core", "_exchange")

    def __init__(self, core: Core, exchange: Exchange) -> None:
        self._core, self._exchange = core, exchange

    def __enter__(self) -> None:
        self._core.in_progress += 1

    def __exit__(self, *_: object) -> None:
        self._core.in_progress -= 1
        self._core.room.left += self._exchange.held


class Core:
    """The state of a serving process. ``start`` makes it ready; ``drain`` and ``stop`` end it well."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.tokens = Tokens(settings.tokens, settings.tokens_file)
        self.metrics = Metrics()
        self.described = describe(settings.variants, settings.release)
        self.recorder = Recorder(settings)
        self.labelling = Labelling(self.recorder.label)
        self.ready = False
        self.draining = False
        self.failure: SlimlineError | None = None  # why the start failed
        self.in_progress = 0
        self.room = Room(self.limits.max_held_bytes)
        self._variants: Variants | None = None
        self._background: set[asyncio.Task[None]] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load every variant, golden requests included, and open the event store."""
        loaded = [await asyncio.to_thread(self.load, each) for each in self.described]
        self._variants = Variants([Variant(*pair) for pair in zip(self.described, loaded, strict=True)])
        self.recorder.serve(each.live for each in self._variants.all)
        await asyncio.to_thread(self.recorder.open, lambda: self.variants.primary.live.series)
        RARELY.start()
        self.ready = True

    def load(self, described: Described) -> Loaded:
        """Load the release that a variant stands for now. Raises a SlimlineError."""
        return Loaded(
            described.directory(), described.name, self.limits, self.metrics,
            threads=self.settings.threads or None, runtime=self.settings.runtime, max_batch=self.settings.max_batch,
            trust=tuple(filter(None, self.settings.trust.split(","))), inline=not described.shadow,
        )  # fmt: skip

    @property
    def variants(self) -> Variants:
        """The variants, once ``start`` is over."""
        if self._variants is None:
            raise RefusedError(503, "not ready yet", RETRY)
        return self._variants

    def cards(self) -> dict[str, Any]:
        """Return GET /model: what answers, with each release's card."""
        return {
            "task": self.variants.primary.live.task,
            "variants": {
                each.name: {
                    "revision": each.live.revision,
                    "weight": each.described.weight,
                    "shadow": each.described.shadow,
                    "signature": each.live.signature,
                    "card": each.live.card,
                }
                for each in self.variants.all
            },
        }

    def drain(self) -> None:
        """Say that no more requests are wanted, while those that come are still answered."""
        self.draining = True

    def pulse(self) -> None:
        """Write the gauges and what was counted; done once in a while and at each scrape, not twice a request."""
        for each in self.variants.all:
            first = each is self.variants.primary  # what belongs to all is counted once
            each.live.series.flush()
            each.live.series.in_progress.set(self.in_progress if first else 0)
            each.live.series.waiting_events.set(self.recorder.waiting if first else 0)
            each.live.series.waiting_rows.set(each.live.batcher.waiting_rows)
            each.live.series.ready.set(self.ready and not self.draining)

    async def stop(self) -> None:
        """Wait for what runs off the requests' path, write the events out, and close."""
        self.ready = False
        if self._background:
            await asyncio.wait(self._background, timeout=BACKGROUND_SECONDS)
        self.labelling.close()
        await asyncio.to_thread(self.recorder.close)
        if self._variants is not None:
            self.pulse()
            for each in self._variants.all:
                each.live.close()
        RARELY.stop()

    # -- a request -----------------------------------------------------------------------------------------------

    def refused(self, status: int) -> None:
        """Count an HTTP error."""
        if self._variants is not None:
            self._variants.primary.live.series.error(status)

    def admitted(self, exchange: Exchange, scope: str) -> Admission:
        """Let a request in that may come and for which there is room."""
        self.tokens.require(exchange, scope)
        if not self.ready:
            raise RefusedError(503, "not ready yet", RETRY)
        if self.in_progress >= self.limits.max_in_progress:
            raise RefusedError(503, "too many requests are in progress, try again later", RETRY)
        return Admission(self, exchange)

    async def infer(
        self, exchange: Exchange, live: Loaded, request_id: str, inputs: Arrays, encode: Callable[[Answered], Reply]
    ) -> Reply:
        """Run inputs, encode the answer, count and record both. Raises InputError, RefusedError."""
        live.predictor.check(inputs)
        rows = len(next(iter(inputs.values())))
        decoded = perf_counter()
        run = await live.batcher.predict(inputs, rows)
        answered_at = perf_counter()
        answered = Answered(request_id, live, run.outputs, *live.answered(run.outputs))
        reply = encode(answered)
        done = perf_counter()
        latency = {
            "decode": decoded - exchange.started,
            "queue": run.queue,
            "predict": run.predict,
            "encode": done - answered_at,
            "total": done - exchange.started,
        }
        live.series.answered(latency, run.rows, answered.labels, rows)
        self.recorder.record(answered, latency, inputs)
        for shadow in self.variants.shadows:
            self._mirror(shadow, request_id, inputs, rows)
        return reply

    def _mirror(self, shadow: Variant, request_id: str, inputs: Arrays, rows: int) -> None:
        """Give a shadow the same inputs, after the answer is on its way; a busy shadow misses some, counted."""
        if shadow.mirrored >= MAX_MIRRORED:
            shadow.live.series.shadow_dropped.inc()
            return
        shadow.mirrored += 1
        self.later(self._shadow(shadow, request_id, inputs, rows))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` off the requests' path; ``stop`` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _shadow(self, shadow: Variant, request_id: str, inputs: Arrays, rows: int) -> None:
        live, start = shadow.live, perf_counter()
        live.in_use += 1
        try:
            live.predictor.check(inputs)
            run = await live.batcher.predict(inputs, rows)
            answered = Answered(request_id, live, run.outputs, *live.answered(run.outputs))
            latency = {"queue": run.queue, "predict": run.predict, "total": perf_counter() - start}
            live.series.answered(latency, run.rows, answered.labels, rows)
            self.recorder.record(answered, latency, inputs, shadow=True)
        except Exception as error:  # noqa: BLE001  (whatever the shadow does, no client sees it)
            live.series.shadow_dropped.inc()
            log.debug("shadow %s: %s", shadow.name, one_line(error))
        finally:
            live.in_use -= 1
            shadow.mirrored -= 1
