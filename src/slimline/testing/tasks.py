"""``check_task``: a task under test, from its splits to its answers."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimline.task import SPLITS, Split, Task, tensors
from slimline.testing.promises import fits, promise, repeatable, require

ROWS = 32
WITHOUT_TORCH = """
import pickle, sys
sys.modules["torch"] = None
import numpy as np
from slimline import plugins, preprocess
document, raw = pickle.load(sys.stdin.buffer)
for step in document["steps"]:
    plugins.find("preprocess", step["op"], where="preprocess.json", trust=())
if raw is not None:
    np.save(sys.stdout.buffer, preprocess.run(document, raw)[document["input"]])
"""


def check_task(task: Task, raw: Sequence[Any] | None = None, *, duplicates: int = 0) -> None:
    """Raise AssertionError unless ``task`` keeps the promises of ``slimline.task.Task``.

    ``raw`` are two or more raw values, to run the preprocessing steps on (without it they are only looked up).
    ``duplicates`` is how many rows may stand in a second split because the data itself repeats them.
    """
    name = type(task).__name__
    with repeatable(1), promise(f"{name}: splits fails"):
        splits = task.splits()
    _check_splits(splits, name, duplicates)
    with repeatable(2), promise(f"{name}: splits fails the second time"):
        again = _forget(task).splits()
    same = all(splits[each].digest == again[each].digest for each in SPLITS)
    require(same, f"{name}: splits differ when drawn again; draw chance from a seed of the task's own")
    axes = _check_signature(task, splits, name)
    _check_preprocess(task, raw, axes, name)
    _check_answers(task, splits["train"].head(ROWS), axes, name)
    _check_augment(task, splits["train"].head(ROWS), name)


def _check_splits(splits: dict[str, Split], name: str, duplicates: int) -> None:
    require(set(splits) == set(SPLITS), f"{name}: splits are {', '.join(splits)}; expected {', '.join(SPLITS)}")
    owner: dict[bytes, str] = {}
    groups: dict[Any, str] = {}
    repeated = []
    for each, split in splits.items():
        require(len(split) > 0, f"{name}: the {each} split is empty")
        for row in range(len(split)):
            digest = hashlib.sha256()
            for _, array in sorted(split.inputs.items()):
                digest.update(array[row].tobytes())
            if owner.setdefault(digest.digest(), each) != each:
                repeated.append(f"row {row} of {each} stands in {owner[digest.digest()]} too")
        for group in np.unique(split.groups).tolist() if split.groups is not None else []:
            straddles = groups.setdefault(group, each) != each
            require(not straddles, f"{name}: group {group!r} straddles {groups[group]} and {each}")
    require(
        len(repeated) <= duplicates,
        f"{name}: {len(repeated)} rows stand in two splits, {duplicates} may: {', '.join(repeated[:1])}",
    )


def _check_signature(task: Task, splits: dict[str, Split], name: str) -> dict[str, int]:
    """Return the sizes of the signature's named axes, without the batch's."""
    with promise(f"{name}: the signature is not JSON data"):
        signature = json.loads(json.dumps(task.signature()))
    for kind in ("inputs", "outputs"):
        specs = signature.get(kind)
        whole = bool(specs) and all({"name", "dtype", "shape"} <= set(spec) for spec in specs)
        require(whole, f"{name}: the signature's {kind} need name, dtype and shape")
        for spec in specs:
            require(isinstance(spec["shape"][0], str), f"{name}: {spec['name']}: the first axis is the batch, by name")
    specs = {spec["name"]: spec for spec in signature["inputs"]}
    axes: dict[str, int] = {}
    for each, split in splits.items():
        require(
            set(split.inputs) == set(specs), f"{name}: {each} has inputs {sorted(split.inputs)}, not {sorted(specs)}"
        )
        for key, array in split.inputs.items():
            _check_array(array, specs[key], {**axes, specs[key]["shape"][0]: len(split)}, f"{name}: {each}")
            fits(array.shape[1:], specs[key]["shape"][1:], axes)
    return axes


def _check_array(array: NDArray[Any], spec: dict[str, Any], axes: dict[str, int], where: str) -> None:
    key, found, wanted = spec["name"], str(array.dtype), spec["dtype"]
    require(found == wanted, f"{where}: input {key!r} is {found}, the signature has {wanted}")
    expected = spec["shape"]
    require(
        fits(array.shape, expected, axes),
        f"{where}: input {key!r} has shape {list(array.shape)}, the signature has {expected}",
    )
    if span := spec.get("range"):
        within = span[0] <= array.min() and array.max() <= span[1]
        require(within, f"{where}: input {key!r} has numbers outside of the signature's range {span}")


def _check_preprocess(task: Task, raw: Sequence[Any] | None, axes: dict[str, int], name: str) -> None:
    """Look the steps up, and run them, in a process where torch can't be imported."""
    with promise(f"{name}: preprocess is not JSON data"):
        document = json.loads(json.dumps(task.preprocess()))
    specs = {spec["name"]: spec for spec in task.signature()["inputs"]}
    complete = {"format", "input", "steps"} <= set(document) and document["input"] in specs
    require(complete, f"{name}: preprocess needs format, steps, and as input one of {', '.join(specs)}")
    values = None if raw is None else list(raw)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=pickle.dumps((document, values)), capture_output=True, check=False
    )
    last = (done.stderr.decode().strip().splitlines() or [""])[-1]
    require(done.returncode == 0, f"{name}: preprocess doesn't run without torch: {last}")
    if values is None:
        return
    found = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    spec = specs[document["input"]]
    fixed = {axis: size for axis, size in axes.items() if axis not in task.signature().get("axes", {})}
    _check_array(found, spec, {**fixed, spec["shape"][0]: len(values)}, f"{name}: preprocess")
    with promise(f"{name}: inputs_of fails"):
        own = task.inputs_of(values)[document["input"]]
    require(np.array_equal(own, found), f"{name}: inputs_of and the steps of preprocess give other arrays")


def _check_answers(task: Task, rows: Split, axes: dict[str, int], name: str) -> None:
    """Check loss, metrics, answer, correct and agree on random outputs."""
    shape = [
        len(rows) if at == 0 else axes.get(size, size)
        for at, size in enumerate(task.signature()["outputs"][0]["shape"])
    ]
    rng = np.random.default_rng(0)
    out, other = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    y = tensors({"y": rows.targets})["y"]
    logits = torch.from_numpy(out.copy()).requires_grad_()
    with promise(f"{name}: loss fails on outputs {shape}"):
        loss = task.loss(logits, y)
        scalar = loss.ndim == 0 and bool(loss.isfinite()) and loss.requires_grad
        require(scalar, f"{name}: loss is no finite scalar with a gradient")
        loss.backward()  # type: ignore[no-untyped-call]
    require(logits.grad is not None and bool(logits.grad.any()), f"{name}: loss gives outputs no gradient")
    with promise(f"{name}: metrics fails"):
        measured = task.metrics(out, rows.targets)
    require(
        task.primary in measured, f"{name}: metrics are {', '.join(measured)}; the primary {task.primary!r} is missing"
    )
    finite = all(isinstance(value, float) and math.isfinite(value) for value in measured.values())
    require(finite, f"{name}: metrics are not finite floats: {measured}")
    with promise(f"{name}: answer, correct or agree fails"):
        a, b = task.answer(out), task.answer(other)
        alone = task.answer(out[:1])
        judged = {
            "correct": task.correct(a, rows.targets),
            "agree": task.agree(a, b),
            "agree, the other way round,": task.agree(b, a),
            "agree with itself": task.agree(a, a),
        }
        first = task.agree(alone, a[:1])
    require(len(a) == len(rows), f"{name}: answer gives {len(a)} answers for {len(rows)} rows")
    for each, value in judged.items():
        per_row = isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.shape == (len(rows),)
        require(per_row, f"{name}: {each} is not one bool a row")
    require(bool(judged["agree with itself"].all()), f"{name}: an answer doesn't agree with itself")
    mutual = np.array_equal(judged["agree"], judged["agree, the other way round,"])
    require(mutual, f"{name}: agree(a, b) and agree(b, a) differ")
    require(bool(np.all(first)), f"{name}: a row's answer depends on the other rows")


def _check_augment(task: Task, rows: Split, name: str) -> None:
    """A row's view depends on that row and its draws alone."""
    if not task.augment_draws:
        own = type(task).augment is not Task.augment
        is_setting = "augment_draws" in vars(task)
        require(is_setting or not own, f"{name}: augment is never called while augment_draws is 0")
        return
    draws = torch.rand(len(rows), task.augment_draws, generator=torch.Generator().manual_seed(0))
    some = torch.arange(1, len(rows), 3)
    before = tensors({key: array.copy() for key, array in rows.inputs.items()})
    with promise(f"{name}: augment fails"):
        with repeatable(1):
            whole = task.augment(dict(before), draws.clone())
        with repeatable(2):
            part = task.augment({key: value[some] for key, value in before.items()}, draws[some])
    untouched = all(np.array_equal(before[key].numpy(), rows.inputs[key]) for key in before)
    require(untouched, f"{name}: augment changes its inputs in place")
    for key, value in before.items():
        kept = key in whole and whole[key].shape == value.shape and whole[key].dtype == value.dtype
        require(kept, f"{name}: augment changes the shape or dtype of {key!r}")
        same = torch.allclose(whole[key][some].double(), part[key].double(), atol=1e-6)
        require(same, f"{name}: augment of a row depends on its batch or on chance beside the draws")


def _forget(task: Task) -> Task:
    """Return a copy of ``task`` without what its cached properties hold."""
    fresh = copy.copy(task)
    for kind in type(task).__mro__:
        for key, member in vars(kind).items():
            if isinstance(member, cached_property):
                fresh.__dict__.pop(key, None)
    return fresh
