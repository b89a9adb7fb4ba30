"""A deployment folder's pointer, and the weights of variants in a JSON file: what our own endpoint follows."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slimline import manifest
from slimline.deployment import Deployment as Folder
from slimline.deployment import short
from slimline.errors import UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.target import Move


@dataclass(frozen=True)
class Deployment:
    """Shift a canary's traffic back where there are ``variants``, or return to an earlier release in ``path``.

    ``path`` is a deployment folder; ``variants`` the JSON file that SLIMLINE_VARIANTS names, whose weights the endpoint
    reads again when the file changes. A variant that shares its traffic with others loses its weight; one that
    answers alone is rolled back in the deployment folder that its ``release`` names.
    """

    path: str = "deploy"
    variants: str | None = None

    name: ClassVar[str] = "deployment"

    def plan(self, alarm: Alarm, avoid: Collection[str]) -> Move | None:
        revision, variant = alarm.standing.revision, alarm.standing.variant
        folder = Folder(self.path)
        if self.variants is not None:
            described = _read(Path(self.variants))
            own = described.get(variant)
            if own is None:
                raise UndoError(f"{self.variants}: no variant {variant!r}; it has {', '.join(described)}")
            folder = Folder(str(own["release"]))
            if _current(folder) != revision:
                return None
            others = [
                name
                for name, each in described.items()
                if name != variant
                and _weight(each) > 0
                and _current(Folder(str(each["release"]))) not in {*avoid, revision}
            ]
            if own.get("shadow") or _weight(own) == 0:
                return None
            if others:
                to = ", ".join(others)
                return Move("shift", f"give the traffic of variant {variant} to {to}", revision, variant, to)
        elif folder.revision() is None:
            raise UndoError(
                f"{folder.path}: no release is current there; monitor.undo.target.path names the deployment"
            )
        elif folder.revision() != revision:
            return None
        earlier = [each for each in folder.earlier() if each not in avoid]
        if not earlier:
            passed = " that did not regress itself" if folder.earlier() else ""
            raise UndoError(f"{folder.path}: no release before {short(revision)}{passed} is installed to go back to")
        what = f"go back from {short(revision)} to {short(earlier[0])} in {folder.path}"
        return Move("rollback", what, revision, variant, earlier[0])

    def move(self, move: Move, alarm: Alarm) -> str:
        del alarm
        if move.kind == "shift":
            path = Path(str(self.variants))
            described = _read(path)
            described[move.variant]["weight"] = 0
            manifest.write_text(path, json.dumps(described, indent=1) + "\n")
            return f"variant {move.variant} of {path} has weight 0; {move.to} answer"
        folder = self._folder(move)
        folder.rollback(move.to, leaving=move.revision)
        return f"{folder.path} is back at {short(str(move.to))}"

    def done(self, move: Move) -> bool | None:
        if move.kind == "shift":
            own = _read(Path(str(self.variants))).get(move.variant)
            return own is None or _weight(own) == 0
        return self._folder(move).revision() != move.revision

    def _folder(self, move: Move) -> Folder:
        if self.variants is None:
            return Folder(self.path)
        return Folder(str(_read(Path(self.variants))[move.variant]["release"]))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UndoError(f"{path}: can't be read ({error}); it is the file that SLIMLINE_VARIANTS names") from error
    if not isinstance(document, dict) or not all(
        isinstance(each, dict) and "release" in each for each in document.values()
    ):
        raise UndoError(f'{path}: expected {{NAME: {{"release": PATH, "weight": 5}}}}, as SLIMLINE_VARIANTS is written')
    return document


def _weight(variant: dict[str, Any]) -> float:
    return 0.0 if variant.get("shadow") else float(variant.get("weight", 1.0))


def _current(folder: Folder) -> str | None:
    """Return the revision that answers: the folder's own when it is a release, else what its pointer leads to."""
    return manifest.digest(folder.path) if (folder.path / "card.json").is_file() else folder.revision()
