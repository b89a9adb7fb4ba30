"""Which layer of one stage became which of the next, by name, and what the stage did to it.

A layer that is replaced by several (its factors) lives on in those whose names begin with its own; dropped blocks shift
the numbers of those behind them; a student that is built anew shares nothing with what came before but names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from slimline.decisions import numbered
from slimline.params import Compression, Distill
from slimline.report import numbers
from slimline.report.study import Study

Layer = Mapping[str, Any]
SAME = 0.005  # a share of zeros that moved by less is no news


@dataclass(frozen=True)
class Lineage:
    """The layers of an exported stage, and those of the exported stage before it."""

    study: Study
    stage: str

    @cached_property
    def layers(self) -> dict[str, Layer]:
        return {layer["name"]: layer for layer in self.study.layers.get(self.stage, ())}

    @cached_property
    def before(self) -> Lineage | None:
        """The exported stage before this one; None for the teacher."""
        at = self.study.line.index(self.stage)
        return Lineage(self.study, self.study.line[at - 1]) if at else None

    @cached_property
    def made_by(self) -> list[str]:
        """The stages that ran since the one before: those that weren't exported, then this one."""
        step = next((step for step in self.study.steps if step.stage == self.stage), None)
        return [*step.through, step.stage] if step else [self.stage]

    @cached_property
    def is_new(self) -> bool:
        """Whether the model was built anew since the stage before."""
        sections = [self.study.params.compressions.get(stage) for stage in self.made_by]
        return any(isinstance(section, Distill) and section.model is not None for section in sections)

    def name_before(self, name: str) -> str:
        """Return the name that a layer had in the stage before, where dropped blocks shifted its number."""
        for stage in reversed(self.made_by):
            section = self.study.params.compressions.get(stage)
            for blocks in reversed(_kept(section, self.study.decisions.get(stage, {}))):
                for container, kept in blocks.items():
                    start = f"{container}." if container else ""
                    number, dot, rest = name.removeprefix(start).partition(".")
                    if name.startswith(start) and number.isdecimal() and int(number) < len(kept):
                        name = f"{start}{kept[int(number)]}{dot}{rest}"
        return name

    def source(self, name: str) -> Layer | None:
        """Return the layer of the stage before that ``name`` is, or is a part of; None for a new one."""
        if self.before is None or self.is_new:
            return None
        old = self.name_before(name)
        while old not in self.before.layers and old:
            old = old.rpartition(".")[0]
        return self.before.layers.get(old)

    def parts(self, source: str) -> list[Layer]:
        """Return the layers that the layer ``source`` of the stage before became, in order."""
        return self._parts.get(source, [])

    @cached_property
    def _parts(self) -> dict[str, list[Layer]]:
        found: dict[str, list[Layer]] = {}
        for name, layer in self.layers.items():
            source = self.source(name)
            if source is not None:
                found.setdefault(source["name"], []).append(layer)
        return found

    @cached_property
    def origins(self) -> dict[str, str]:
        """For each layer, the name that it, or what it is a part of, had in the first stage of this model."""
        found = {}
        for name in self.layers:
            source = self.source(name)
            found[name] = name if source is None or self.before is None else self.before.origins[source["name"]]
        return found

    def from_origin(self, origin: str) -> list[Layer]:
        """Return this stage's layers that came from ``origin``."""
        return [self.layers[name] for name, first in self.origins.items() if first == origin]

    def changes(self, layer: Layer) -> list[str]:
        """Return what this stage did to a layer, in a few words each."""
        if self.is_new:
            return ["new network"]
        source = self.source(layer["name"])
        if source is None:
            return [*_requantized(layer, {})] or ["new"]
        parts = self.parts(source["name"])
        if len(parts) > 1 or parts[0]["name"].count(".") > source["name"].count("."):
            at = [part["name"] for part in parts].index(layer["name"]) + 1
            replaced = f"part {at} of {len(parts)} of {source['name']}, rank {rank(parts)}"
            return [replaced, *_requantized(layer, source)]
        found = [*_narrowed(layer, source), *_zeroed(layer, source), *_requantized(layer, source)]
        if found or "weight" not in layer:
            return found or ["–"]
        return ["unchanged" if layer["values"] == source.get("values") else "new values"]

    def merged_changes(self, origin: str) -> list[str]:
        """Return what this stage did to all that came from ``origin``."""
        own = self.from_origin(origin)
        if not own:
            return ["gone"] if self.before and not self.is_new and self.before.from_origin(origin) else []
        sources = {old["name"] for layer in own if (old := self.source(layer["name"])) is not None}
        if len(own) > 1 and len(sources) == 1:
            return [
                f"{len(own)} layers of rank {rank(own)}",
                *dict.fromkeys(each for layer in own for each in self.changes(layer)[1:]),
            ]
        return list(dict.fromkeys(each for layer in own for each in self.changes(layer)))

    def reasons(self, name: str) -> list[str]:
        """Return why methods took a layer or left it: recorded choices, and globs in params.yaml that skip it."""
        source = self.source(name)
        known = {name, self.name_before(name), source["name"] if source else name}
        found = []
        for stage in self.made_by:
            for method, choice in self.study.decisions.get(stage, {}).items():
                layers = choice.get("layers", {})
                found += [f"{method}: {layers[each]['why']}" for each in known if layers.get(each, {}).get("why")]
                found += [f"{method}: {why}" for why in _of_block(choice, self.name_before(name))]
            section = self.study.params.compressions.get(stage)
            for configured in section.methods if isinstance(section, Compression) else []:
                for pattern in configured.settings.get("skip", []):
                    told = any(each.startswith(f"{configured.name}: ") for each in found)
                    if not told and any(fnmatchcase(each, pattern) for each in known):
                        found.append(f"{configured.name}: skipped by {pattern!r}")
        return list(dict.fromkeys(found))

    def reasons_gone(self, origin: str) -> list[str]:
        """Return why methods dropped what came from ``origin`` and is in this stage no more."""
        names = [layer["name"] for layer in self.before.from_origin(origin)] if self.before else []
        return list(
            dict.fromkeys(
                f"{method}: {why}"
                for stage in self.made_by
                for method, choice in self.study.decisions.get(stage, {}).items()
                for name in names
                for why in _of_block(choice, name)
            )
        )


def rank(parts: Sequence[Layer]) -> str:
    """Return the ranks of a factorized layer: the widths between its parts."""
    inner = [(part["weight"], "Embedding" in part["kind"]) for part in parts[:-1] if "weight" in part]
    widths = [str(weight[1] if looked_up else weight[0]) for weight, looked_up in inner]
    return ", ".join(dict.fromkeys(widths) if len(set(widths)) == 1 else widths) or "–"


def width(quantizer: Mapping[str, Any]) -> str:
    """Return an integer type: ``int8`` of a symmetric grid, ``uint8`` of a linear one."""
    return f"{'int' if quantizer['scheme'] == 'symmetric' else 'uint'}{quantizer['bits']}"


def scheme(quantizer: Mapping[str, Any]) -> str:
    """Return which values share a scale."""
    if quantizer["block"]:
        return f"in blocks of {quantizer['block']}"
    return "per tensor" if quantizer["axis"] is None else "per channel"


def input_quantizers(layer: Layer) -> list[Mapping[str, Any]]:
    """Return the quantizers of a layer's inputs."""
    return [each["quantizer"] for each in layer["inputs"] if each["quantizer"]]


def _widths(layer: Layer) -> tuple[str, str]:
    weight, bits = layer.get("quantizer"), layer.get("float_bits")
    inputs = list(dict.fromkeys(width(each) for each in input_quantizers(layer)))
    own = f"{width(weight)} weights {scheme(weight)}" if weight else f"float{bits} weights" if bits else ""
    return own, " and ".join(inputs)


def _requantized(layer: Layer, source: Layer) -> list[str]:
    now, old = _widths(layer), _widths(source) if source else (_widths(layer)[0], "")
    if now == old:
        return []
    found = [now[0]] if now[0] != old[0] else []
    found += [f"{now[1]} inputs"] if now[1] != old[1] and now[1] else []
    return found or ["quantizers removed"]


def _narrowed(layer: Layer, source: Layer) -> list[str]:
    now, old = layer.get("weight"), source.get("weight")
    if now is None or old is None or now == old:
        return []
    (out, into, *kernel), (old_out, old_into, *old_kernel) = now, old
    found = [f"{old_out}→{out} out"] if out != old_out else []
    found += [f"{old_into}→{into} in"] if into != old_into else []
    return found + ([f"kernel {size(old_kernel)}→{size(kernel)}"] if kernel != old_kernel else [])


def _zeroed(layer: Layer, source: Layer) -> list[str]:
    now, old = (each.get("masked") or 0.0 for each in (layer, source))
    if abs(now - old) < SAME:
        return []
    return [f"{numbers.percent(old)}→{numbers.percent(now)} masked"]


def size(shape: Sequence[int]) -> str:
    """Return a shape: ``16×8×3×3``."""
    return "×".join(map(str, shape)) or "scalar"


def _kept(section: Any, decisions: Mapping[str, Any]) -> list[dict[str, list[int]]]:
    """Return {container: positions that stay} of the blocks that each method of a stage dropped, in order."""
    if isinstance(section, Distill):
        return [dict(section.keep or {})]
    found: list[dict[str, list[int]]] = []
    measured = 0
    for method in section.methods if isinstance(section, Compression) else []:
        if method.name == "drop-layers":
            found.append({str(name): kept for name, kept in method.settings.get("keep", {}).items()})
        elif method.name == "depth":
            measured += 1
            found.append(decisions.get(numbered("depth", measured), {}).get("kept", {}))
    return found


def _of_block(choice: Mapping[str, Any], name: str) -> list[str]:
    """Return why the block that the layer ``name`` is in stayed or went."""
    return [each["why"] for block, each in choice.get("blocks", {}).items() if f"{name}.".startswith(f"{block}.")]
