"""Several releases behind one address: weights for those that answer, mirrored traffic for shadows."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

from slimline.deployment import Deployment
from slimline.endpoint.loaded import Loaded
from slimline.endpoint.settings import origin
from slimline.errors import ParamsError

DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Described:
    """A variant as the settings describe it: a release (or a deployment folder), its weight, or a shadow."""

    name: str
    release: Path
    weight: float = 1.0
    shadow: bool = False
    given: str = field(default="", compare=False)  # where ``release`` was named, as errors begin

    @property
    def deployment(self) -> Deployment | None:
        """The deployment whose current pointer is followed, unless ``release`` is a release itself."""
        return None if (self.release / "card.json").is_file() else Deployment(self.release)

    def directory(self) -> Path:
        """Return the release to load now. Raises ParamsError when there is none."""
        deployment = self.deployment
        found = self.release if deployment is None else deployment.current()
        if found is None:
            where = "" if self.given else ", as an argument or in SLIMLINE_RELEASE"
            raise ParamsError(
                f"{self.given}{self.release}: no release: neither card.json nor a current pointer is there; "
                f"name the folder that 'dvc repro release' or 'slimline deploy' wrote{where}"
            )
        return found.resolve()


def describe(text: str, release: Path) -> list[Described]:
    """Return the variants of SLIMLINE_VARIANTS, or the one ``release`` when it is empty.

    ``text`` is ``{NAME: {"release": PATH, "weight": 5}}`` or ``{NAME: {"release": PATH, "shadow": true}}``, as JSON or
    as the path of a JSON file. Raises ParamsError naming what is wrong.
    """
    if not text.strip():
        return [Described(DEFAULT, release, given=origin(release))]
    where = "SLIMLINE_VARIANTS"
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParamsError(f"SLIMLINE_VARIANTS: {where}: can't be read ({error})") from None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParamsError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{where}: expected an object of variants by name")
    found = [_described(name, each, where) for name, each in document.items()]
    if not sum(each.weight for each in found if not each.shadow) > 0:
        raise ParamsError(f"{where}: no variant has a weight above 0, so nothing would answer")
    return found


def _described(name: str, fields: Any, where: str) -> Described:
    if not _NAME.fullmatch(name):
        raise ParamsError(f"{where}: {name!r}: a variant's name is lower-case letters, digits, '-', '_', '.'")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("release"), str):
        raise ParamsError(f"{where}: {name}.release: expected the path of a release or deployment")
    if unknown := sorted(fields.keys() - {"release", "weight", "shadow"}):
        raise ParamsError(f"{where}: {name}.{unknown[0]}: unknown key; there are release, weight, shadow")
    weight, shadow = fields.get("weight", 1.0), fields.get("shadow", False)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e9:
        raise ParamsError(f"{where}: {name}.weight: {weight!r}, expected a number of 0 or more")
    if not isinstance(shadow, bool):
        raise ParamsError(f"{where}: {name}.shadow: {shadow!r}, expected true or false")
    return Described(name, Path(fields["release"]), float(weight), shadow, f"{where}: {name}.release: ")


class InUse:
    """A release that a request is answered by."""

    __slots__ = ("_live",)

    def __init__(self, live: Loaded) -> None:
        self._live = live

    def __enter__(self) -> Loaded:
        self._live.in_use += 1
        return self._live

    def __exit__(self, *_: object) -> None:
        self._live.in_use -= 1


@dataclass(eq=False)
class Variant:
    """A variant that runs. ``live`` is replaced as a whole when its release is: read it once a request."""

    described: Described
    live: Loaded
    mirrored: int = field(default=0)  # requests a shadow hasn't answered yet

    @property
    def name(self) -> str:
        return self.described.name

    def used(self) -> InUse:
        """Return the release that answers now as a block's own; it is not closed before the block is over."""
        return InUse(self.live)


class Variants:
    """Chooses who answers."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self.all = list(variants)
        self.routed = [each for each in variants if not each.described.shadow]
        self.shadows = [each for each in variants if each.described.shadow]
        self._share()

    def reweigh(self, described: Sequence[Described]) -> dict[str, float]:
        """Take the weights of ``described`` from the next request on; return those that changed, by name.

        Raises ParamsError, and changes nothing, when anything but weights differs: other variants need a restart.
        """
        wanted = {each.name: each for each in described}
        for each in self.all:
            other = wanted.get(each.name)
            if other is None or replace(other, weight=each.described.weight) != each.described:
                raise ParamsError(f"{each.name}: only weights can change while serving; restart for the rest")
        if new := sorted(wanted.keys() - {each.name for each in self.all}):
            raise ParamsError(f"{new[0]}: only weights can change while serving; restart for the rest")
        changed = {}
        for each in self.all:
            if each.described.weight != wanted[each.name].weight:
                changed[each.name] = wanted[each.name].weight
                each.described = wanted[each.name]
        self._share()
        return changed

    def _share(self) -> None:
        self.primary = max(self.routed, key=lambda each: each.described.weight)
        total = sum(each.described.weight for each in self.routed)
        self._ends = list(accumulate(each.described.weight / total for each in self.routed))

    def choose(self, request_id: str) -> Variant:
        """Return the variant for an id: the same id always gets the same one, as long as the weights stay."""
        if len(self.routed) == 1:
            return self.routed[0]
        point = int.from_bytes(blake2b(request_id.encode(), digest_size=7).digest()) / 2**56
        return self.routed[min(bisect_right(self._ends, point), len(self.routed) - 1)]

    def named(self, model: str) -> Variant | None:
        """Return the routed variant called ``model``; None where there is none (a shadow's answer goes to nobody)."""
        return next((each for each in self.routed if each.name == model), None)
