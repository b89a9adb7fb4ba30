"""Which compression stage made a release worse, or whether the data or the process around it did."""

from __future__ import annotations

from slimline.monitor.blame.chain import Chain, Rows
from slimline.monitor.blame.verdict import Blame, blame, on_alarm, replayed

__all__ = ["Blame", "Chain", "Rows", "blame", "on_alarm", "replayed"]
