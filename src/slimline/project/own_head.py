"""Whether a model's own head gives the labels of a user's data, and in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slimline.own_data import labelled_rows

HEAD = "ForSequenceClassification"
SHOWN = 10


class Head(NamedTuple):
    """``labels`` as the data spell them, in the order of the outputs; whether the head fits them; why, in words."""

    labels: list[str]
    fits: bool
    said: str


def of(labels: list[str], settings: Mapping[str, Any]) -> Head:
    """Return what the head of a model with this config.json is worth for ``labels``; none: a number.

    Names that differ in upper and lower case alone are the same, where no two of either side are. Data that number
    their labels from 0 take the model's names for them. Where it calls its outputs LABEL_0, LABEL_1, … or just 0, 1, …
    the order that is given stands.
    """
    if not any(str(each).endswith(HEAD) for each in settings.get("architectures") or []):
        return Head(labels, fits=False, said="has no head for these labels: it is trained first")
    names = outputs(settings)
    whole = {*range(len(names))} == {labelled_rows.position(each) for each in labels}
    if (ordered := _in_order(names, labels)) is not None:
        return Head(ordered, fits=True, said="has a head for them: as it is")
    if all(_is_number(name, at) for at, name in enumerate(names)) and len(names) == max(len(labels), 1):
        order = f"; its outputs have no names, so they are taken for {_shown(labels)} in this order" if labels else ""
        return Head(labels, fits=True, said=f"has a head for them: as it is{order}")
    if whole:
        distinct = len(set(names)) == len(names) and not any(map(str.isdecimal, names))
        return Head(names if distinct else labels, fits=True, said="has a head for them: as it is")
    return Head(labels, fits=False, said=f"has a head for {_shown(names)}, {_amiss(names, labels)}: it is trained anew")


def _is_number(name: str, at: int) -> bool:
    """Return whether an output has no name but its place: LABEL_2, label 2, 2."""
    return re.fullmatch(rf"(label|class)?[ _-]?{at}", name, re.IGNORECASE) is not None


def outputs(settings: Mapping[str, Any]) -> list[str]:
    """Return what a config.json calls the outputs; transformers leaves names out that are its own for two labels."""
    names = settings.get("id2label") or {at: f"LABEL_{at}" for at in range(int(settings.get("num_labels") or 2))}
    return [str(names[key]) for key in sorted(names, key=int)]


def _in_order(names: list[str], labels: list[str]) -> list[str] | None:
    """Return the labels in the order of the names that they are; None where they aren't."""
    if len(set(names)) == len(names) and sorted(names) == sorted(labels):
        return names
    ours = {label.casefold(): label for label in labels}
    theirs = [name.casefold() for name in names]
    one_each = len(ours) == len(labels) == len(names) == len(set(theirs))
    return [ours[name] for name in theirs] if one_each and set(theirs) == set(ours) else None


def _amiss(names: list[str], labels: list[str]) -> str:
    """Return what keeps a head's names from being the labels."""
    if not labels:
        return "and a number is asked for"
    ours, theirs = ({each.casefold() for each in side} for side in (labels, names))
    places = [str(at) for at in range(len(names))]
    if set(labels) < set(places):
        lacking, unheard = [], [name for at, name in zip(places, names, strict=True) if at not in labels]
    else:
        lacking = [label for label in labels if label.casefold() not in theirs]
        unheard = [name for name in names if name.casefold() not in ours]
    amiss = [f"without {_shown(lacking)}"] if lacking else []
    amiss += [f"and no row has {_shown(unheard)}"] if unheard else []
    return ", ".join(amiss) or "and some differ in upper and lower case alone"


def _shown(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
