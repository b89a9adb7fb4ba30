"""What a signal is made for: one revision, answering as one variant, and what its release promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimline import manifest, params
from slimline.errors import ReleaseError
from slimline.params import Monitor


@dataclass(frozen=True)
class Watched:
    """One revision as one variant.

    ``release`` is its directory, None where no such release was found: then ``card``, ``objectives``, ``labels`` and
    the served model's ``signature`` are empty. ``shadow``: its answers are recorded, never returned. ``params`` is the
    section ``monitor`` of the release's own params.yaml, or of the one that ``slimline monitor --params`` names.
    ``incumbent`` is the directory of the release that served before it, where one is known.
    """

    revision: str
    variant: str
    shadow: bool
    params: Monitor
    release: Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    objectives: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    signature: Mapping[str, Any] = field(default_factory=dict)
    incumbent: Path | None = None

    @property
    def own(self) -> tuple[str, str]:
        """(revision, variant): what its standings and metrics carry."""
        return self.revision, self.variant


def read(
    revision: str,
    variant: str,
    *,
    shadow: bool,
    release: Path | None,
    chosen: Monitor | None,
    incumbent: Path | None = None,
) -> Watched:
    """Read what ``release`` promises; ``chosen`` stands in for its own section ``monitor``.

    Raises ArtifactError or ReleaseError where the release can't be read.
    """
    if release is None:
        return Watched(revision, variant, shadow, chosen or Monitor())
    card = manifest.read_json(release / "card.json")
    objectives = manifest.read_json(release / "monitoring" / "objectives.json")
    try:
        signature = manifest.read_json(release / "chain" / card["last"] / "signature.json")
        own = chosen or params.parse(card["params"], release / "card.json").monitor
    except (KeyError, TypeError) as error:
        raise ReleaseError(f"{release / 'card.json'}: no {error}; make the release again") from error
    labels = tuple(signature.get("labels") or ())
    return Watched(revision, variant, shadow, own, release, card, objectives, labels, signature, incumbent)
