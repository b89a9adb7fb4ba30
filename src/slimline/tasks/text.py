"""Texts of one's own, single or in pairs: a table, a tokenizer, and one label, several, or a number a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import labelled_rows, manifest, row_files, vocabulary
from slimline.errors import DataError, ParamsError, near_miss
from slimline.labelled_rows import Read, Source
from slimline.outcomes import ManyLabels, Number, OneLabel, Outcome
from slimline.task import Split
from slimline.tokens import IDS, TYPES, tokenize

VERSION = 1  # of the prepared rows: raise it when the same settings give others


class Text(Outcome):
    """``data`` is a table (CSV, TSV, JSONL, Parquet) or {train: table, test: table}; ``text`` names one column or two.

    ``tokenizer`` is a model's folder or name on the hub, or a tokenizer.json. ``validation`` and ``test`` are shares
    of the rows, where files or the column ``split`` don't say which rows these are; ``group`` is a column whose equal
    values never straddle splits. Texts whose tokens are equal count as one group.
    """

    def __init__(
        self,
        data: str | Mapping[str, str],
        tokenizer: str,
        text: str | Sequence[str] = "text",
        label: str = "label",
        max_length: int = 128,
        split: str | None = None,
        group: str | None = None,
        validation: float = 0.1,
        test: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.source = Source(data, split, group)
        self.columns = [text] if isinstance(text, str) else list(text)
        if len(self.columns) not in {1, 2}:
            raise ParamsError(f"task.args.text: one column or two, found {len(self.columns)}")
        self.tokenizer, self.label, self.max_length = tokenizer, label, max_length
        self.shares = {"validation": validation, "test": test}
        self.seed = seed

    @property
    def pair(self) -> bool:
        """Whether a row is two texts."""
        return len(self.columns) == 2

    @cached_property
    def _vocabulary(self) -> vocabulary.Vocabulary:
        return vocabulary.find(self.tokenizer)

    def preprocess(self) -> dict[str, Any]:
        found = self._vocabulary
        step = {"op": "tokenize", "file": str(found.file), "max_length": self.max_length, "pad_id": found.pad_id}
        return {"format": 1, "input": IDS, "steps": [{**step, "pair": True} if self.pair else step]}

    def signature(self) -> dict[str, Any]:
        names = [IDS, TYPES] if self.pair else [IDS]
        return {
            "inputs": [{"name": name, "dtype": "int64", "shape": ["batch", "length"]} for name in names],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", self.width]}],
            "axes": {"length": self.max_length},
            **({"labels": list(self.labels)} if self.labels else {}),
        }

    def splits(self) -> dict[str, Split]:
        return self._splits

    @cached_property
    def _splits(self) -> dict[str, Split]:
        folder = row_files.cached(self._key(), self._write)
        meta = manifest.read_json(folder / "meta.json")
        self.notes = meta["notes"]
        names = [spec["name"] for spec in self.signature()["inputs"]]
        splits = {}
        for part in meta["parts"]:
            inputs = {name: row_files.load(folder / f"{part}.{name}.npy") for name in names}
            targets = np.load(folder / f"{part}.targets.npy")
            groups = np.load(folder / f"{part}.groups.npy")
            splits[part] = Split(inputs, targets, groups, padding=(IDS, self._vocabulary.pad_id))
        self.fit(splits["train"].targets)
        return splits

    def _key(self) -> list[Any]:
        """Return all that decides the rows."""
        files = self.source.files()
        if missing := [path for path in files.values() if not path.is_file()]:
            raise DataError(f"{missing[0]}: no such file; params.yaml: task.args.data names it")
        return [
            VERSION, {part: [str(path), manifest.sha256(path)] for part, path in files.items()},
            self.source.split, self.source.group, self.columns, self.label, list(self.labels or ()), self.described,
            manifest.sha256(self._vocabulary.file), self._vocabulary.pad_id, self.max_length, self.shares, self.seed,
            getattr(self, "separator", None),
        ]  # fmt: skip

    def _write(self, scratch: Path) -> None:
        read, found = Read(), []
        names = [spec["name"] for spec in self.signature()["inputs"]]
        raw = {name: (scratch / f"all.{name}").open("wb") for name in names}
        try:
            for first, columns in labelled_rows.batches(self.source, [*self.columns, self.label], read):
                values = [self._texts(row, read.where(first + at)) for at, row in enumerate(self._rows(columns))]
                for name, array in self._tokens(values).items():
                    raw[name].write(np.ascontiguousarray(array).data)
                for at, value in enumerate(columns[self.label]):
                    try:
                        found.append(self.target(value))
                    except DataError as error:
                        raise DataError(f"{read.where(first + at)}: column {self.label!r}: {error}") from error
        finally:
            for file in raw.values():
                file.close()
        targets = self.as_targets(found)
        arrays: dict[str, NDArray[np.int64]] = {
            name: np.memmap(scratch / f"all.{name}", np.int64, "r", shape=(len(targets), self.max_length))
            for name in names
        }
        same = row_files.equal_rows(list(arrays.values()))
        parts, notes = labelled_rows.parts(read, self.strata(targets), same, self.shares, self.seed)
        self.check_training(targets[parts["train"]], str(read.files[0]))
        for part, rows in parts.items():
            for name, array in arrays.items():
                row_files.select(array, rows, scratch / f"{part}.{name}.npy")
            np.save(scratch / f"{part}.targets.npy", targets[rows])
            np.save(scratch / f"{part}.groups.npy", same[rows])
        for name in names:
            (scratch / f"all.{name}").unlink()
        manifest.write_json(scratch / "meta.json", {"parts": list(parts), "notes": notes})

    def _rows(self, columns: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
        return list(zip(*(columns[name] for name in self.columns), strict=True))

    def _texts(self, row: tuple[Any, ...], where: str) -> Any:
        for name, value in zip(self.columns, row, strict=True):
            if not isinstance(value, str) or not value.strip():
                raise DataError(f"{where}: column {name!r}: {'empty' if not value else f'{value!r} is no text'}")
        return list(row) if self.pair else row[0]

    def _tokens(self, values: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
        """Return the tokens of texts, filled up to ``max_length``."""
        found = self._vocabulary
        made = tokenize(values, file=str(found.file), max_length=self.max_length, pad_id=found.pad_id, pair=self.pair)
        arrays = made if isinstance(made, dict) else {IDS: made}
        fills = {IDS: found.pad_id, TYPES: 0}
        return {
            name: np.pad(array, ((0, 0), (0, self.max_length - array.shape[1])), constant_values=fills[name])
            for name, array in arrays.items()
        }


class OneLabelText(Text, OneLabel):
    """Each text has one of ``labels``, in the order of the model's outputs."""

    def __init__(self, labels: Sequence[str], class_weights: str | Sequence[float] | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.labels, self.class_weights = _names(labels), class_weights


class ManyLabelsText(Text, ManyLabels):
    """Each text has any of ``labels``."""

    def __init__(self, labels: Sequence[str], separator: str = ",", **rest: Any) -> None:
        super().__init__(**rest)
        self.labels, self.separator = _names(labels), separator


class NumberText(Text, Number):
    """Each text has a number; an answer within ``tolerance`` of it is right."""

    def __init__(self, tolerance: float, **rest: Any) -> None:
        super().__init__(**rest)
        self.tolerance = tolerance


KINDS: dict[str, type[Text]] = {"one": OneLabelText, "many": ManyLabelsText, "number": NumberText}


def text(answer: str = "one", **args: Any) -> Text:
    """Return the task of texts that have ``one`` label, ``many``, or a ``number``."""
    if answer not in KINDS:
        raise ParamsError(
            f"task.args.answer: {answer!r} is not one of {', '.join(KINDS)}.{near_miss(answer, list(KINDS))}"
        )
    return KINDS[answer](**args)


def _names(labels: Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(each) for each in labels)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ParamsError("task.args.labels: two labels or more, each once")
    return names
