"""The signals of quality, each made for what is watched, or None where it has nothing to go by."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from slimline.monitor import baseline
from slimline.monitor.accuracy import Accuracy
from slimline.monitor.agreement import Agreement
from slimline.monitor.baseline import Baseline
from slimline.monitor.drift import Drift
from slimline.monitor.estimate import Estimate
from slimline.monitor.watched import Watched
from slimline.pipeline import ROOT


def accuracy(watched: Watched) -> Accuracy | None:
    """Needs a release whose rows have one label, or a number, each."""
    known = _baseline(watched)
    return Accuracy(known, watched.own, watched.params.run_length) if known and not known.many else None


def agreement(watched: Watched) -> Agreement | None:
    """Needs a chain that has the teacher and more."""
    known = _baseline(watched)
    if known is None or known.stage == ROOT or len(known.reference) < 2:
        return None
    return Agreement(known, watched.own, watched.params.run_length, watched.params.agreement_drop)


def estimate(watched: Watched) -> Estimate | None:
    """Needs labels, and reference rows on which confidence was calibrated."""
    known = _baseline(watched)
    if known is None or known.calibration is None:
        return None
    return Estimate(known, watched.own, watched.params.run_length)


def drift(watched: Watched) -> Drift | None:
    """Needs reference rows."""
    known = _baseline(watched)
    if known is None or not known.reference:
        return None
    return Drift(known, watched.own, watched.params.run_length, watched.params.drift_rate)


def _baseline(watched: Watched) -> Baseline | None:
    if watched.release is None:
        return None
    return _read(watched.release, watched.revision, watched.params.agreement_drop, watched.incumbent)


@lru_cache(maxsize=8)
def _read(release: Path, revision: str, agreement_drop: float, incumbent: Path | None) -> Baseline:
    del revision  # another revision in the same folder is another baseline
    return baseline.read(release, agreement_drop, incumbent)
