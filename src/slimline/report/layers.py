"""The tables of layers: one that follows each layer through the stages, and one of every number for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimline.pipeline import ROOT
from slimline.report import numbers
from slimline.report.lineage import Layer, Lineage, input_quantizers, rank, scheme, size, width
from slimline.report.study import Study
from slimline.report.tables import NONE, Cell, Table

REST = "rest of the file"


@dataclass(frozen=True)
class StageLayers:
    """The layers of one stage. ``same_as`` names the stage before where nothing at all changed."""

    stage: str
    table: Table
    same_as: str = ""


def chain(study: Study) -> Table | None:
    """Return what each stage did to each layer, layers down, stages across; None where no layers are known.

    It starts where the model was last built anew, or at the teacher.
    """
    stages = [Lineage(study, stage) for stage in study.line if stage in study.layers]
    begin = max((at for at, each in enumerate(stages) if each.is_new), default=0)
    shown = stages[begin:]
    if not any(each.before for each in shown):
        return None
    origins: list[str] = []
    for each in shown:
        at = 0
        for name in each.layers:
            origin = each.origins[name]
            if origin not in origins:
                origins.insert(at, origin)
            at = origins.index(origin) + 1
    rows = []
    for origin in origins:
        cells = []
        for each in shown:
            own = each.from_origin(origin)
            why = list(dict.fromkeys(reason for layer in own for reason in each.reasons(layer["name"])))
            did = each.merged_changes(origin) if each.before else [size(layer["weight"]) for layer in own]
            if each.is_new:
                did = [size(layer["weight"]) for layer in own if "weight" in layer]
            why = why if own else each.reasons_gone(origin)
            cells.append(Cell(", ".join(did) or "–", "; ".join(why)))
        rows.append((origin, cells))
    return Table(["layer", *(each.stage for each in shown)], rows)


def of_stages(study: Study) -> list[StageLayers]:
    """Return the layers of every stage after the teacher whose layers are known."""
    found = []
    for stage in study.line:
        if stage == ROOT or stage not in study.layers:
            continue
        own = Lineage(study, stage)
        same = own.before is not None and study.layers.get(own.before.stage) == study.layers[stage]
        found.append(StageLayers(stage, _table(study, own), own.before.stage if own.before and same else ""))
    return found


def _table(study: Study, own: Lineage) -> Table:
    total = sum(layer["macs"] for layer in own.layers.values()) or 1
    minds = study.sensitivity.get(own.stage, {})
    head = ["layer", "kind", "weights", "MACs", "bytes", "widths", "zeros", "SQNR"]
    head += ["minds most"] if minds else []
    rows = []
    for name, layer in own.layers.items():
        cells = [
            _kind(layer, own), _shape(layer, own), _macs(layer, total), _bytes(layer, own), _widths(layer),
            _zeros(layer), _sqnr(layer),
        ]  # fmt: skip
        cells += [_sensitivity(study, minds.get(name))] if minds else []
        cells.append(Cell(", ".join(own.changes(layer))))
        rows.append((name, cells))
    row = study.row(own.stage)
    known = [layer["bytes"] for layer in own.layers.values() if layer["bytes"] is not None]
    blank = [Cell("")] * (len(head) - 5)
    if known:
        left = Cell(numbers.count(row["bytes"] - sum(known), "B"))
        rows.append((REST, [Cell(""), Cell(""), Cell(""), left, *blank, Cell("graph, scales of activations")]))
    return Table([*head, f"what {own.stage} did"], rows)


def _kind(layer: Layer, own: Lineage) -> Cell:
    kernel = layer.get("kernel_size") if "weight" in layer else None
    kind = layer["kind"] + (f" {size(kernel)}" if isinstance(kernel, list) else "")
    notes = []
    stride = layer.get("stride")
    if isinstance(stride, list) and set(stride) != {1} and "weight" in layer:
        notes.append(f"stride {size(stride) if len(set(stride)) > 1 else stride[0]}")
    if (layer.get("groups") or 1) > 1:
        notes.append(f"{layer['groups']} groups")
    siblings = _siblings(layer, own)
    if siblings:
        notes.append(f"factor of rank {rank(siblings)}")
    return Cell(kind, ", ".join(notes))


def _siblings(layer: Layer, own: Lineage) -> list[Layer]:
    """Return the factors of the layer that this one is a part of, itself among them; none of a whole one."""
    origin = own.origins[layer["name"]]
    group = own.from_origin(origin)
    return group if len(group) > 1 and layer["name"] != origin else []


def _shape(layer: Layer, own: Lineage) -> Cell:
    if "weight" not in layer:
        return NONE
    notes = []
    source = own.source(layer["name"])
    if source is not None and source.get("weight") not in (None, layer["weight"]):
        notes.append(f"was {size(source['weight'])}")
    teacher = Lineage(own.study, ROOT).layers.get(layer["name"])
    if teacher is not None and "weight" in teacher and own.before is not None and own.before.stage == ROOT:
        notes.append(f"teacher's {size(teacher['weight'])}")
    return Cell(size(layer["weight"]), ", ".join(dict.fromkeys(notes)))


def _macs(layer: Layer, total: int) -> Cell:
    macs = layer["macs"]
    return Cell(numbers.count(macs), numbers.percent(macs / total)) if macs else NONE


def _bytes(layer: Layer, own: Lineage) -> Cell:
    source = own.source(layer["name"])
    if layer["bytes"] is None:
        return NONE
    was = source["bytes"] if source is not None and len(own.parts(source["name"])) == 1 else None
    changed = was is not None and was != layer["bytes"]
    return Cell(numbers.count(layer["bytes"], "B"), f"was {numbers.count(was, 'B')}" if changed and was else "")


def _widths(layer: Layer) -> Cell:
    weight, inputs = layer.get("quantizer"), input_quantizers(layer)
    if weight is None and not inputs:
        return Cell(f"float{layer.get('float_bits', 32)}")
    shown = " and ".join(dict.fromkeys(width(each) for each in inputs)) or f"float{layer.get('float_bits', 32)}"
    if "weight" not in layer:
        return Cell(f"{shown} inputs")
    own = f"{width(weight)} weights" if weight else f"float{layer['float_bits']} weights"
    notes = [scheme(weight), *(["learned step"] if weight["learned"] else [])] if weight else []
    return Cell(own, ", ".join([*notes, f"{shown} inputs"]))


def _zeros(layer: Layer) -> Cell:
    if "weight" not in layer:
        return NONE
    masked = layer["masked"]
    return Cell(numbers.percent(layer["zeros"]), "" if masked is None else f"{numbers.percent(masked)} masked")


def _sqnr(layer: Layer) -> Cell:
    if layer["sqnr"] is None:
        return NONE
    clipped = max((each["clipped"] for each in layer["inputs"] if each["clipped"] is not None), default=0.0)
    return Cell(f"{layer['sqnr']:.1f} dB", f"{numbers.percent(clipped)} clipped" if clipped else "")


def _sensitivity(study: Study, trials: Sequence[Mapping[str, Any]] | None) -> Cell:
    """Return the trial of a layer that costs most."""
    if not trials:
        return NONE
    worst = max(trials, key=lambda trial: trial["drop"])
    return Cell(
        f"{study.primary.difference(worst['drop'], signed=True)} lost", f"by {worst['method']}, {worst['strength']}"
    )
