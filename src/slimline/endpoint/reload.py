"""Live reload: follow a deployment's current pointer and swap releases between two requests.

Weights of variants follow their file in the same way, when SLIMLINE_VARIANTS names one.

The new release is verified and answers its golden requests in this process before it takes over; one that fails is
refused, said once in the log and counted, and the old one serves on. Requests in flight end on the release they began
with.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from slimline.endpoint.core import Core
from slimline.endpoint.exchange import one_line
from slimline.endpoint.variants import Variant, describe
from slimline.errors import SlimlineError

log = logging.getLogger(__name__)


class Reloader:
    """Looks for new releases of all variants."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._refused: dict[str, str] = {}
        self._lock = asyncio.Lock()
        text = core.settings.variants.strip()
        self._file = Path(text) if text and not text.startswith("{") else None
        self._seen: tuple[int, int, int] | None = None

    async def watch(self, seconds: float) -> None:
        """Look every ``seconds``, for ever: one readlink a variant."""
        while True:
            await asyncio.sleep(seconds)
            await self.look()

    async def look(self, *, again: bool = False) -> dict[str, str]:
        """Swap each variant whose deployment points elsewhere; return {variant: what became of it}.

        A release that was refused isn't tried again, unless ``again``.
        """
        async with self._lock:
            self._reweigh()
            return {variant.name: await self._look(variant, again=again) for variant in self._core.variants.all}

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the variants' file is written anew."""
        try:
            status = None if self._file is None else self._file.stat()
        except OSError:
            return None
        return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)

    def _reweigh(self) -> None:
        """Take new weights from the variants' file, if it changed; a file that can't be used changes nothing."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            changed = self._core.variants.reweigh(describe(str(self._file), self._core.settings.release))
        except SlimlineError as error:
            log.error("%s: the weights stay: %s", self._file, one_line(error))  # noqa: TRY400
            return
        for name, weight in changed.items():
            log.info("variant %s has weight %g now", name, weight)

    async def _look(self, variant: Variant, *, again: bool) -> str:
        try:
            deployment = variant.described.deployment
            wanted = deployment.revision() if deployment is not None else None
        except (SlimlineError, OSError) as error:
            return self._refuse(variant, "", error)
        if wanted is None or wanted == variant.live.revision:
            return "unchanged"
        if wanted == self._refused.get(variant.name) and not again:
            return "refused"
        try:
            live = await asyncio.to_thread(self._core.load, variant.described)
        except Exception as error:  # noqa: BLE001  (whatever a foreign release makes its runtime raise)
            return self._refuse(variant, wanted, error)
        old, variant.live = variant.live, live
        self._refused.pop(variant.name, None)
        live.series.reloaded("loaded")
        old.series.end()
        log.info("variant %s: release %s answers, %s ends", variant.name, live.short, old.short)
        self._core.recorder.serve(each.live for each in self._core.variants.all)
        self._core.later(old.retire())
        return "loaded"

    def _refuse(self, variant: Variant, revision: str, error: Exception) -> str:
        if self._refused.get(variant.name) != revision:
            log.error("variant %s: %s serves on: %s", variant.name, variant.live.short, one_line(error))
            variant.live.series.reloaded("refused")
        self._refused[variant.name] = revision
        return "refused"
