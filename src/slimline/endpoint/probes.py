"""What machines ask beside predictions: alive, ready, metrics, which model, which interface."""

from __future__ import annotations

import asyncio

from slimline.endpoint.core import Core
from slimline.endpoint.exchange import Exchange, Reply, json_reply
from slimline.endpoint.metrics import CONTENT_TYPE
from slimline.endpoint.openapi import document


class Probes:
    """The routes that take nothing."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def livez(self, _: Exchange) -> Reply:
        """GET /livez: the event loop turns."""
        return json_reply({"status": "alive"})

    async def readyz(self, _: Exchange) -> Reply:
        """GET /readyz: the golden requests were answered in this process, and it isn't ending.

        A remote runtime may be away: labels are still taken, and who asks is told to come again.
        """
        if self.core.ready and not self.core.draining:
            return json_reply({"status": "ready"})
        return json_reply({"status": "draining" if self.core.draining else "starting"}, 503)

    async def metrics(self, _: Exchange) -> Reply:
        """GET /metrics, rendered in a thread: many worker processes make it long."""
        self.core.pulse()
        return Reply(await asyncio.to_thread(self.core.metrics.render), content_type=CONTENT_TYPE)

    async def model(self, _: Exchange) -> Reply:
        """GET /model: the variants with their releases' cards."""
        return json_reply(self.core.cards())

    async def openapi(self, _: Exchange) -> Reply:
        """GET /openapi.json"""
        return json_reply(document())
