"""A task on a user's own data, whatever its rows are: read once, dealt to splits, kept on disk, memory-mapped."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from slimline import manifest, plugin_keys
from slimline.errors import DataError, ParamsError, near_miss
from slimline.file_index import FILE, FileIndex
from slimline.own_data import labelled_rows, row_files
from slimline.own_data.labelled_rows import Mistakes, Read, WrongRowsError, enumerated
from slimline.own_data.outcomes import FITTED, ManyLabels, Number, OneLabel, Outcome
from slimline.task import Split

SHOWN = 80
VERSION = 5  # of the prepared rows: raise it when the same settings give others
Batch = tuple[list[Any], list[Any]]
Names = Sequence[str | int | float]
Weights = Literal["balanced"] | Sequence[float] | None


class OwnRows(Outcome):
    """``validation`` and ``test`` are shares of the rows, where the data don't say which rows these are."""

    def __init__(self, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> None:
        for name, share in (("validation", validation), ("test", test)):
            if not 0 < share < 0.5:
                raise ParamsError(f"task.args.{name}: {share}: a share of the rows between 0 and one half is expected")
        self.shares = {"validation": validation, "test": test}
        self.seed = seed

    def stored(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Return what is kept of a row, by the input it becomes: dtype and shape."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """Return the files that the rows come from."""
        raise NotImplementedError

    def settings(self) -> list[Any]:
        """Return all else that decides the rows, as JSON data."""
        raise NotImplementedError

    def read(self, read: Read) -> Iterator[Batch]:
        """Yield (values, labels) batch by batch, and note in ``read`` where each row stands and belongs."""
        raise NotImplementedError

    def arrays(self, values: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """Return what is kept of ``values``. Raises WrongRowsError for those that can't be used."""
        raise NotImplementedError

    def as_input(self, name: str, kept: NDArray[Any]) -> Any:
        """Return the model's input for what was kept: an array, or what indexes like one."""
        del name
        return kept

    def remarks(self, kept: Mapping[str, NDArray[Any]]) -> list[str]:
        """Return lines on what was kept of all rows, rows first, that a user should see."""
        del kept
        return []

    @property
    def padding(self) -> tuple[str, int] | None:
        """What rows are filled up with: see ``Split``."""
        return None

    def splits(self) -> dict[str, Split]:
        return self._splits

    def rows_of(self, part: str) -> NDArray[np.int64]:
        """Return where the rows of a split stand among all that are read, in the split's order."""
        found: NDArray[np.int64] = np.load(self._folder / f"{part}.rows.npy")
        return found

    @cached_property
    def _folder(self) -> Path:
        return self.prepare()

    def prepare(self) -> Path:
        """Return the folder of the prepared rows, made unless it is there."""
        if missing := [path for path in self.files() if not path.exists()]:
            raise DataError(f"{missing[0]}: no such file or folder; params.yaml: task.args.data names it")
        index = FileIndex(FILE)  # as the fingerprints left it: what is unchanged since isn't read again
        sources = [[str(path), index.facts(path, manifest.sha256)] for path in self.files()]
        own = [self.described, list(self.labels or ()), getattr(self, "separator", None), self.shares, self.seed]
        return row_files.cached([VERSION, type(self).__name__, sources, own, self.settings()], self._write)

    @cached_property
    def _splits(self) -> dict[str, Split]:
        folder = self._folder
        meta = manifest.read_json(folder / "meta.json")
        self.notes = meta["notes"]
        splits = {}
        for part in meta["parts"]:
            inputs = {
                name: self.as_input(name, row_files.load(folder / f"{part}.{name}.npy")) for name in self.stored()
            }
            targets, groups = (np.load(folder / f"{part}.{kind}.npy") for kind in ("targets", "groups"))
            splits[part] = Split(inputs, targets, groups, self.padding)
        self.fit(splits["train"].targets)
        return splits

    def _write(self, scratch: Path) -> None:
        read, found, first = Read(), [], 0
        mistakes = Mistakes(read)
        with row_files.appending(scratch, self.stored()) as append:
            for values, labels in mistakes.over(self.read(read)):
                try:
                    append(self.arrays(values))
                except WrongRowsError as error:
                    for at, what in error.wrong.items():
                        mistakes.note(first + at, what)
                for at, value in enumerate(labels):
                    try:
                        found.append(self.target(value))
                    except DataError as error:
                        mistakes.note(first + at, str(error))
                first += len(values)
        mistakes.tell()
        targets = self.as_targets(found)
        kept = row_files.appended(scratch, self.stored())
        same = row_files.equal_rows(list(kept.values()))
        parts, notes = labelled_rows.parts(read, self.strata(targets), same, self.shares, self.seed)
        notes += self.remarks(kept)
        self._check_training(targets, parts["train"], read)
        notes += self._unmeasured(targets, parts["test"])
        notes += self._contradicting(targets, same, read)
        for part, rows in parts.items():
            for name, array in kept.items():
                row_files.select(array, rows, scratch / f"{part}.{name}.npy")
            beside: dict[str, NDArray[Any]] = {"targets": targets[rows], "groups": same[rows], "rows": rows}
            for kind, numbers in beside.items():
                row_files.save(scratch / f"{part}.{kind}.npy", [numbers], len(rows))
        row_files.drop_appended(scratch, kept)
        manifest.write_json(scratch / "meta.json", {"parts": list(parts), "notes": notes})

    def _check_training(self, targets: NDArray[Any], rows: NDArray[np.int64], read: Read) -> None:
        """Raise DataError, naming a row of another split that has it, where a label has no training row."""
        names = self.labels or ()
        lost = [at for at in range(len(names)) if not self.has(targets[rows], at).any()]
        if lost:
            elsewhere = np.flatnonzero(self.has(targets, lost[0]))
            where = read.where(int(elsewhere[0])) if len(elsewhere) else read.files[0]
            near = near_miss(names[lost[0]], [name for at, name in enumerate(names) if at not in lost])
            raise DataError(
                f"{where}: label {names[lost[0]]!r} has no training row ({len(lost)} such in task.args.labels).{near}"
            )

    def _unmeasured(self, targets: NDArray[Any], rows: NDArray[np.int64]) -> list[str]:
        """Return a line on the labels that no test row has, those of fewest rows first."""
        lost = [at for at in range(len(self.labels or ())) if not self.has(targets[rows], at).any()]
        if not lost:
            return []
        counts = sorted((int(self.has(targets, at).sum()), (self.labels or ())[at]) for at in lost)
        shown = [f"{name!r} ({each:,} {'row' if each == 1 else 'rows'} in all)" for each, name in counts]
        labels, them = ("label", "it") if len(lost) == 1 else ("labels", "them")
        return [f"no test row has the {labels} {enumerated(shown, len(shown))}, so nothing measures {them}"]

    def _contradicting(self, targets: NDArray[Any], same: NDArray[np.int64], read: Read) -> list[str]:
        """Return a line on the inputs that have several labels: two rows of the first, and how many more there are."""
        if not self.labels:
            return []
        answers = row_files.equal_rows([targets])
        inputs = np.unique(np.stack([same, answers]), axis=1)[0]
        several = np.unique(inputs[1:][np.diff(inputs) == 0])
        if not len(several):
            return []
        rows = np.flatnonzero(same == several[0])
        other = rows[answers[rows] != answers[rows[0]]][0]
        count = len(several) - 1
        more = f" (and {count:,} more such {'input' if count == 1 else 'inputs'})" if count else ""
        places = f"{read.where(int(rows[0]))} and {read.where(int(other))}"
        return [f"{places}: the same input with different labels{more}; mend the wrong one, or take it out"]


class OneLabelRows(OwnRows, OneLabel):
    """Each row has one of ``labels``, in the order of the model's outputs."""

    def __init__(self, labels: Names, class_weights: Weights = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.labels = _names(labels)
        self.class_weights = _one_each(class_weights, self.labels)


class ManyLabelsRows(OwnRows, ManyLabels):
    """Each row has any of ``labels``."""

    def __init__(
        self,
        labels: Names,
        separator: str = ",",
        threshold: float | Literal["fitted"] = FITTED,
        class_weights: Weights = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        if isinstance(threshold, float | int) and not 0 < threshold < 1:
            raise ParamsError(f"task.args.threshold: {threshold!r}: a number between 0 and 1 is expected, or {FITTED}")
        self.labels, self.separator, self.threshold = _names(labels), separator, threshold
        self.class_weights = _one_each(class_weights, self.labels)
        if split := next((name for name in self.labels if "," in name), None):
            raise ParamsError(f"task.args.labels: {split!r}: answers list labels by commas, so none may hold one")


class NumberRows(OwnRows, Number):
    """Each row has a number; an answer within ``tolerance`` of it is right."""

    def __init__(self, tolerance: float, **rest: Any) -> None:
        super().__init__(**rest)
        if not tolerance >= 0:
            raise ParamsError(f"task.args.tolerance: {tolerance!r}: a number, 0 or more, is expected")
        self.tolerance = tolerance


def chosen(kinds: Mapping[str, Any], answer: str, args: Mapping[str, Any]) -> Any:
    """Return the task of this kind of answer: ``one`` label, ``many``, or a ``number``."""
    if answer not in (known := list(kinds)):
        near = near_miss(str(answer), known)
        raise ParamsError(f"task.args.answer: {answer!r} is not one of {', '.join(known)}.{near}")
    _check_keys({name: _keys(kind) for name, kind in kinds.items()}, answer, args)
    _check_types(kinds[answer], args)
    return kinds[answer](**args)


def _check_keys(keys: Mapping[str, Mapping[str, bool]], answer: str, args: Mapping[str, Any]) -> None:
    """Raise ParamsError for an argument that this kind of answer doesn't take, or lacks."""
    for name in args:
        others = [other for other, known in keys.items() if name in known]
        if not others:
            raise ParamsError(f"task.args.{name}: unknown key.{near_miss(name, list(keys[answer]))}")
        if answer not in others:
            which = " and ".join(others)
            raise ParamsError(f"task.args.{name}: of answer: {which} alone, not of {answer}; take it out")
    for name, needed in keys[answer].items():
        if needed and name not in args:
            raise ParamsError(f"task.args.{name}: missing; answer: {answer} needs it ('slimline init' writes it)")


def _check_types(kind: type, args: Mapping[str, Any]) -> None:
    """Raise ParamsError for the first argument that isn't what the constructors of a class say it is."""
    types: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        types |= get_type_hints(vars(each)["__init__"]) if "__init__" in vars(each) else {}
    for name, value in args.items():
        try:
            TypeAdapter(types[name]).validate_python(value, strict=True)
        except ValidationError as error:
            deepest = max(error.errors(include_url=False), key=lambda each: len(each["loc"]))
            key = ".".join(["task.args", name, *(str(each) for each in deepest["loc"] if isinstance(each, int))])
            found = shorten(repr(deepest["input"]), SHOWN, placeholder=" …")
            wanted = plugin_keys.words(types[name])
            quotes = isinstance(deepest["input"], bool) and "text" in wanted
            hint = "; YAML takes yes, no, on and off for that: put such a name in quotes" if quotes else ""
            raise ParamsError(f"{key}: expected {wanted}, found {found}{hint}") from None


def _keys(kind: type) -> dict[str, bool]:
    """Return what the constructors of a class and of its bases take, and whether it must be given."""
    found: dict[str, bool] = {}
    for each in kind.__mro__:
        if "__init__" in vars(each):
            for name, one in inspect.signature(vars(each)["__init__"]).parameters.items():
                if name != "self" and one.kind is one.POSITIONAL_OR_KEYWORD:
                    found.setdefault(name, one.default is one.empty)
    return found


def _names(labels: Names) -> tuple[str, ...]:
    names = tuple(str(each) for each in labels)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ParamsError("task.args.labels: two labels or more, each once")
    return names


def _one_each(weights: Weights, labels: Sequence[str]) -> Weights:
    if weights is None or isinstance(weights, str):
        return weights
    if len(weights) != len(labels):
        raise ParamsError(f"task.args.class_weights: {len(labels)} numbers, one a label, found {len(weights)}")
    if wrong := [each for each in weights if not 0 <= each < math.inf]:
        raise ParamsError(f"task.args.class_weights: {wrong[0]}: a finite number, 0 or more, is expected")
    return weights
