"""Texts of one's own, single or in pairs: a table, a tokenizer, and one label, several, or a number a row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimline import manifest, tokenizer
from slimline.errors import DataError, ParamsError
from slimline.own_data import labelled_rows, row_files
from slimline.own_data.labelled_rows import Read, Source, WrongRowsError
from slimline.own_data.rows import Batch, ManyLabelsRows, NumberRows, OneLabelRows, OwnRows, chosen
from slimline.pruning import trimming
from slimline.task import spread
from slimline.teachers.baselines import TFIDF_SVM, tfidf_svm
from slimline.tokenizer import TokenizerFile
from slimline.tokens import IDS, TYPES, tokenize

TEXT = "text"  # the column that is looked for without being named
UNKNOWN = 0.05  # of the tokens: above it a tokenizer hardly fits the texts
TRIMMED = 1  # of the rows by a trimmed tokenizer: raise it when the same rows give others


class Text(OwnRows):
    """``data`` is a table (CSV, TSV, JSONL, Parquet) or {train: table, test: table}; ``text`` names one column or two.

    ``tokenizer`` is a model's folder or name on the hub, or a tokenizer.json. A column ``split`` may say which rows
    are for what; ``group`` is one whose equal values never straddle splits. Texts whose tokens are equal count as one
    group. Training sees each text without the share ``token_dropout`` of its tokens, drawn anew for each view.
    """

    def __init__(
        self,
        data: str | Mapping[str, str],
        tokenizer: str,
        text: str | Sequence[str] = TEXT,
        label: str = "label",
        max_length: int = 128,
        split: str | None = None,
        group: str | None = None,
        vocabulary: str = "all",
        token_dropout: float = 0.0,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        if not 0 <= token_dropout < 1:
            raise ParamsError(f"task.args.token_dropout: {token_dropout} is no share from 0 to below 1")
        self.token_dropout = token_dropout
        self.augment_draws = 2 if token_dropout else 0
        if vocabulary not in {"all", "train"}:
            raise ParamsError(f"task.args.vocabulary: {vocabulary!r} is neither all nor train")
        self.trims = vocabulary == "train"
        self.source = Source(data, split, group)
        self.columns = [text] if isinstance(text, str) else list(text)
        if len(self.columns) not in {1, 2}:
            raise ParamsError(f"task.args.text: one column or two, found {len(self.columns)}")
        if max_length < 4:
            raise ParamsError(f"task.args.max_length: {max_length} tokens hold no text")
        self.tokenizer, self.label, self.max_length = tokenizer, label, max_length

    @property
    def pair(self) -> bool:
        """Whether a row is two texts."""
        return len(self.columns) == 2

    @cached_property
    def _whole(self) -> TokenizerFile:
        """The tokenizer as it was found."""
        return tokenizer.find(self.tokenizer)

    @cached_property
    def _document(self) -> dict[str, Any]:
        """What stands in the tokenizer's tokenizer.json."""
        return tokenizer.document(self._whole.file)

    @property
    def _in_use(self) -> TokenizerFile:
        return TokenizerFile(self._folder / tokenizer.FILE, self._whole.pad_id) if self.trims else self._whole

    @property
    def padding(self) -> tuple[str, int]:
        return IDS, self._whole.pad_id

    def preprocess(self) -> dict[str, Any]:
        found = self._in_use
        step = {"op": "tokenize", "file": str(found.file), "max_length": self.max_length, "pad_id": found.pad_id}
        document = {"format": 1, "input": IDS, "steps": [{**step, "pair": True} if self.pair else step]}
        return document if self.columns == [TEXT] else {**document, "columns": self.columns}

    @cached_property
    def _ranges(self) -> dict[str, list[int]]:
        """The least and the largest number in each input; trimming changes no numbers."""
        largest = max(trimming.numbers(self._document)[-1], self._whole.pad_id)
        return {IDS: [0, largest], TYPES: [0, 1]}

    def signature(self) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": name, "dtype": "int64", "shape": ["batch", "length"], "range": self._ranges[name]}
                for name in self.stored()
            ],
            "outputs": [{"name": self.output, "dtype": "float32", "shape": ["batch", self.width]}],
            "axes": {"length": self.max_length},
            **self.said,
        }

    def stored(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        return dict.fromkeys([IDS, TYPES] if self.pair else [IDS], (np.int64, (self.max_length,)))

    def files(self) -> list[Path]:
        return list(self.source.files().values())

    @cached_property
    def _special(self) -> torch.Tensor:
        """The numbers of tokens that are no part of a text."""
        added = [each["id"] for each in self._document.get("added_tokens") or [] if each["special"]]
        return torch.tensor(sorted({self._whole.pad_id, *added}))

    def augment(self, inputs: dict[str, torch.Tensor], draws: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the rows without some of their tokens, those behind them moved up, and as long as before.

        The numbers of a row come from its two draws, a·j + b·j² modulo 1 for its j-th token: uniform, and independent
        in pairs.
        """
        ids = inputs[IDS]
        at = torch.arange(1, ids.shape[1] + 1, dtype=torch.float64)
        a, b = draws.to(torch.float64).unbind(1)
        chance = (a[:, None] * at + b[:, None] * at**2) % 1
        goes = (chance < self.token_dropout) & ~torch.isin(ids, self._special)
        order = goes.to(torch.int8).argsort(dim=1, stable=True)
        fills = {IDS: self._whole.pad_id, TYPES: 0}
        return {name: value.masked_fill(goes, fills[name]).gather(1, order) for name, value in inputs.items()}

    def settings(self) -> list[Any]:
        found = self._whole
        return [
            list(self.source.files()), self.source.split, self.source.group, self.columns, self.label, self.max_length,
            manifest.sha256(found.file), found.pad_id,
        ]  # fmt: skip

    def read(self, read: Read) -> Iterator[Batch]:
        numbers = [self.label] if self.numeric else []
        for _, columns in labelled_rows.batches(self.source, [*self.columns, self.label], read, numbers):
            texts = [columns[name] for name in self.columns]
            yield [*map(list, zip(*texts, strict=True))] if self.pair else texts[0], columns[self.label]

    def arrays(self, values: Sequence[Any]) -> dict[str, NDArray[Any]]:
        wrong: dict[int, str] = {}
        for at, row in enumerate(values):
            for name, value in zip(self.columns, row if self.pair else [row], strict=True):
                if not isinstance(value, str) or not value.strip():
                    wrong.setdefault(at, f"column {name!r}: {_wrong(value)}")
        if wrong:
            raise WrongRowsError(wrong)
        return self.tokens(values, self._whole)

    def remarks(self, kept: Mapping[str, NDArray[Any]]) -> list[str]:
        number = trimming.unknown(self._document)
        if number is None:
            return []
        ids, counted = kept[IDS], np.zeros(2, np.int64)
        special = self._special[self._special != number].numpy()
        for start in range(0, len(ids), row_files.CHUNK):
            rows = np.asarray(ids[start : start + row_files.CHUNK])
            counted += [int((rows == number).sum()), int(np.isin(rows, special, invert=True).sum())]
        unknown, words = map(int, counted)
        if unknown <= UNKNOWN * words:
            return []
        share = f"{unknown / words:.0%} of all tokens are unknown to the tokenizer"
        return [f"{share}; is it the model's own, and made for texts like these?"]

    def prepare(self) -> Path:
        folder = super().prepare()
        if not self.trims:
            return folder
        return row_files.cached([TRIMMED, folder.name], lambda scratch: self._trim(folder, scratch))

    def _trim(self, folder: Path, scratch: Path) -> None:
        """Write the rows of ``folder`` anew by a tokenizer that keeps what its training rows need."""
        whole, document = self._whole, self._document
        used = np.unique(row_files.load(folder / f"train.{IDS}.npy"))
        smaller = trimming.trimmed(document, used.tolist(), f"task.args.tokenizer: {whole.file}")
        left = TokenizerFile(scratch / tokenizer.FILE, whole.pad_id)
        manifest.write_text(left.file, json.dumps(smaller, ensure_ascii=False))
        meta, stored = manifest.read_json(folder / "meta.json"), self.stored()
        with row_files.appending(scratch, stored) as append:
            for values, _ in self.read(Read()):
                append(self.tokens(values, left))
        everything = row_files.appended(scratch, stored)
        for part in meta["parts"]:
            for kind in ("targets", "groups", "rows"):
                shutil.copyfile(folder / f"{part}.{kind}.npy", scratch / f"{part}.{kind}.npy")
            for name, rows in everything.items():
                row_files.select(rows, np.load(scratch / f"{part}.rows.npy"), scratch / f"{part}.{name}.npy")
                made = row_files.load(scratch / f"{part}.{name}.npy")
                if part == "train" and not np.array_equal(made, row_files.load(folder / f"{part}.{name}.npy")):
                    raise DataError(
                        f"task.args.tokenizer: {whole.file}: without unused pieces it splits the training texts in "
                        "another way; use vocabulary: all"
                    )
        row_files.drop_appended(scratch, stored)
        before, after = (len(trimming.numbers(each)) for each in (document, smaller))
        note = f"{after:,} of the tokenizer's {before:,} pieces stay; the others split into shorter ones"
        manifest.write_json(scratch / "meta.json", {**meta, "notes": [*meta["notes"], note]})

    def tokens(self, values: Sequence[Any], found: TokenizerFile | None = None) -> dict[str, NDArray[np.int64]]:
        """Return the tokens of texts, filled up to ``max_length``; ``found`` is another tokenizer than the task's."""
        found = found or self._in_use
        made = tokenize(values, file=str(found.file), max_length=self.max_length, pad_id=found.pad_id, pair=self.pair)
        arrays = made if isinstance(made, dict) else {IDS: made}
        fills = {IDS: found.pad_id, TYPES: 0}
        return {
            name: np.pad(array, ((0, 0), (0, self.max_length - array.shape[1])), constant_values=fills[name])
            for name, array in arrays.items()
        }


class OneLabelText(Text, OneLabelRows):
    """Each text has one of ``labels``, in the order of the model's outputs."""

    def baselines(self, limit: int | None = None) -> dict[str, dict[str, Any]]:
        """Return TF-IDF and a linear SVM over the whole texts, whatever ``max_length`` leaves of them."""
        rows = [found[spread(len(found), limit)] for found in map(self.rows_of, ("train", "test"))]
        wanted = {int(row) for each in rows for row in each}
        read = enumerate(value for values, _ in self.read(Read()) for value in values)
        texts = {row: " ".join(value) if self.pair else value for row, value in read if row in wanted}
        train, test = ([texts[int(row)] for row in each] for each in rows)
        targets = {part: split.head(limit).targets for part, split in self.splits().items()}
        found = tfidf_svm(train, targets["train"], test, self.seed)
        metrics = self.metrics(np.eye(self.width, dtype=np.float32)[found.answers], targets["test"])
        return {TFIDF_SVM: metrics | {"bytes": found.bytes, "latency_ms": found.latency_ms}}


class ManyLabelsText(Text, ManyLabelsRows):
    """Each text has any of ``labels``."""


class NumberText(Text, NumberRows):
    """Each text has a number; an answer within ``tolerance`` of it is right."""


def _wrong(value: Any) -> str:
    is_text = isinstance(value, str) or value is None
    return "empty; fill it in, or take the row out" if is_text else f"{value!r} is no text"


def text(answer: str = "one", **args: Any) -> Text:
    """Return the task of texts that have ``one`` label, ``many``, or a ``number``."""
    task: Text = chosen({"one": OneLabelText, "many": ManyLabelsText, "number": NumberText}, answer, args)
    return task
