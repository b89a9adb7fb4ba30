"""POST /feedback: what was true, acknowledged once it is durable."""

from __future__ import annotations

from typing import Any

from slimline.endpoint import codecs
from slimline.endpoint.core import RETRY, Core
from slimline.endpoint.exchange import Exchange, RefusedError, Reply, json_reply, one_line
from slimline.endpoint.predict import check_id
from slimline.errors import EventError, InputError, near_miss
from slimline.events import Outcome

KEYS = {"id", "index", "label"}
MAX_INDEX = 2**31 - 1
MAX_LABEL_CHARS = 1000
MAX_LABELS = 1000
NOTES = {Outcome.EARLY: "no prediction of this id is stored yet: the label is kept, and counts once there is one"}


class Feedback:
    """Stores one label, or several as ``{"labels": [{"id", "index", "label"}, …]}``."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def __call__(self, exchange: Exchange) -> Reply:
        core = self.core
        with core.admitted(exchange, "feedback"):
            limits = core.limits
            document = codecs.parse_json(await exchange.body(limits.max_body_bytes, limits.body_seconds, core.room))
            several = "labels" in document
            listed = document["labels"] if several else [document]
            if not isinstance(listed, list) or not 0 < len(listed) <= MAX_LABELS:
                raise InputError(f'"labels": expected a list of 1 to {MAX_LABELS} labels')
            labels = [self._label(each) for each in listed]
            try:
                outcomes = await core.labelling.label(labels)
            except EventError as error:
                raise RefusedError(
                    503, f"the event store is away, nothing was kept: {one_line(error)}", RETRY
                ) from None
            told = [
                {"id": label["id"], "index": label["index"], "outcome": str(outcome)}
                | ({"note": NOTES[outcome]} if outcome in NOTES else {})
                for label, outcome in zip(labels, outcomes, strict=True)
            ]
            refused = Outcome.NO_SUCH_ROW in outcomes
            return json_reply({"labels": told} if several else told[0], 422 if refused and not several else 200)

    def _label(self, document: Any) -> dict[str, Any]:
        """Return a checked {id, index, label}. Raises InputError."""
        if not isinstance(document, dict):
            raise InputError("a label is an object with id, index and label")
        if unknown := document.keys() - KEYS:
            raise InputError(f'"{min(unknown)[:40]}": unknown key; a label has id, index and label')
        index = document.get("index", 0)
        if type(index) is not int or not 0 <= index <= MAX_INDEX:
            raise InputError('"index": expected the row, 0 or more')
        return {"id": check_id(document.get("id"), self.core), "index": index, "label": self._value(document)}

    def _value(self, document: dict[str, Any]) -> Any:
        if "label" not in document:
            raise InputError('"label" is missing')
        value = document["label"]
        each = value if isinstance(value, list) else [value]
        if not all(type(one) in {str, int, float} for one in each) or len(each) > MAX_LABELS:
            raise InputError('"label": expected text, a number, or a list of them')
        if any(isinstance(one, str) and len(one) > MAX_LABEL_CHARS for one in each):
            raise InputError(f'"label": at most {MAX_LABEL_CHARS} characters')
        known = {label for variant in self.core.variants.all for label in variant.live.answers.labels or ()}
        for one in each if known else ():
            if one not in known:
                hint = near_miss(one, sorted(known)) if isinstance(one, str) else ""
                raise InputError(f'"label": no label of this model.{hint} GET /model lists them')
        return float(value) if isinstance(value, int) else value
