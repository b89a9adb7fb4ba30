"""What the scripts in ``stages/`` share: where a stage reads and writes, its task, and how a compression runs."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from slimline import artifact, ending, manifest, params, pipeline, plugins, times
from slimline.artifact import Artifact, Named
from slimline.decisions import FOLDER as DECISIONS
from slimline.decisions import Decisions
from slimline.errors import ArtifactError, SlimlineError
from slimline.file_index import FILE, FileIndex
from slimline.method import Batches, Context, Edit, Method, check_kind, check_without_training, compress
from slimline.params import Compression, Configured, Params, Taught, Training
from slimline.pipeline import ROOT
from slimline.pruning import masks
from slimline.sensitivity import CACHE
from slimline.task import Split, Task, tensors
from slimline.training import State, TeacherCache, Term, fit
from slimline.training.curves import FOLDER as CURVES
from slimline.training.curves import curves
from slimline.training.processes import processes

BATCH = 100
STOPPED = 130  # what a command that Ctrl+C stopped exits with


@dataclass(frozen=True)
class Stage:
    """One stage at work. ``limit`` cuts every split to so many rows."""

    name: str
    params: Params
    limit: int | None

    @cached_property
    def task(self) -> Task:
        named = Named(self.params.task.name, self.params.task.args)
        return artifact.build_task(named, f"{params.FILE}: task")

    @cached_property
    def splits(self) -> dict[str, Split]:
        return self._cut[0]

    @property
    def left_out(self) -> dict[str, list[int]]:
        """{split: [rows used, rows there are]} of those that ``limit`` cuts."""
        used, whole = self._cut
        return {name: [len(used[name]), count] for name, count in whole.items() if len(used[name]) < count}

    @cached_property
    def _cut(self) -> tuple[dict[str, Split], dict[str, int]]:
        """The task's splits cut to ``limit``, and how many rows each had."""
        with processes().main_process_first():  # the others find prepared rows on disk
            found = self.task.splits()
        whole = {name: len(split) for name, split in found.items()}
        return {name: split.head(self.limit) for name, split in found.items()}, whole

    @property
    def section(self) -> Any:
        """This stage's own section of params.yaml."""
        return self.params.compressions[self.name] if self.name != ROOT else self.params.teacher

    @property
    def output(self) -> Path:
        return artifact.FOLDER / self.name

    def load(self, stage: str) -> tuple[nn.Module, Artifact, str]:
        """Return the model of ``artifacts/stage``, its description and its digest."""
        return self.load_from(artifact.FOLDER / stage)

    def load_from(self, folder: Path) -> tuple[nn.Module, Artifact, str]:
        """Return the model of an artifact's folder, its description and its digest."""
        model, described = artifact.load(folder, trust=self.params.trusted, task=self.task)
        if described.task.name != self.params.task.name:
            raise ArtifactError(
                f"{folder / 'model.json'}: made for task {described.task.name!r}, {params.FILE} says "
                f"{self.params.task.name!r}; run {described.stage} again"
            )
        return model, described, manifest.digest(folder)

    def batches(self, split: Split) -> Batches:
        """Return a function that yields (inputs, targets) over ``split``, the same at each call.

        Rows of several lengths go together with others as long, and those batches in random order.
        """
        rows = list(split.batches(BATCH))
        if split.padding is not None:
            np.random.default_rng(self.params.seed).shuffle(rows)

        def each() -> Iterator[tuple[dict[str, Any], Any]]:
            for chosen in rows:
                inputs, y = split[chosen]
                yield tensors(inputs), next(iter(tensors({"y": y}).values()))

        return each

    def context(self, where: str, decisions: Decisions) -> Context:
        """Return what a method of this stage plans with; ``where`` is the file and key of its settings."""
        parts = self.splits["calibration"], self.splits["validation"]
        seed, train = self.params.seed, self.splits["train"]
        return Context(self.task, *parts, self.params.target, decisions, seed, where, CACHE, train)

    def keep(self, model: nn.Module, blocks: dict[str, list[int]]) -> tuple[nn.Module, Edit]:
        """Return a copy of ``model`` with these blocks of its containers alone, and the edit that says so."""
        where = f"{params.FILE}: {self.name}"
        method = params.configure("methods", Configured.model_validate({"name": "drop-layers", "keep": blocks}), where)
        context = self.context(where, Decisions(None, {}))
        smaller, plan = compress(method, model, self.batches(self.splits["calibration"]), context)
        for note in plan.notes:
            print(f"{self.name}: {note}")
        return smaller, plan.edit

    def train(
        self,
        model: nn.Module,
        settings: Training,
        *,
        key: str,
        inputs: list[str | None],
        taught: Taught | None = None,
        methods: tuple[Method, ...] = (),
        on_best: Callable[[NDArray[np.float32]], None] = lambda _: None,
    ) -> str | None:
        """Train ``model`` by ``settings`` (their key in this stage's section is ``key``). Returns the teacher's digest.

        ``inputs`` are the digests that decide where training starts from, ``taught`` names teachers and losses. The
        digest of several teachers is that of the list of theirs. ``on_best`` hears the best epoch's validation outputs.
        """
        train, validation = self.splits["train"], self.splits["validation"]
        taught = taught or Taught()
        index = FileIndex(FILE)  # as the fingerprints left it: what is unchanged since isn't read again
        code = pipeline.fingerprint(params.read(), self.name, index=index)
        caches, digests = [], []
        for teacher in taught.heard:
            model_of_teacher, _, digest = self.load(teacher)
            name = manifest.canonical([digest, train.digest, self.params.seed, self._view_code(code)])
            caches.append(TeacherCache(model_of_teacher, self.task, train, _short(name), self.params.seed))
            digests.append(digest)
        teacher_digest = digests[0] if len(digests) == 1 else _digest_of(digests)
        where = f"{params.FILE}: {self.name}.{key}"
        section = f"{params.FILE}: {self.name}" if key == "training" else where
        terms = [
            Term(params.configure("losses", chosen, at), chosen.weight, at) for chosen, at in taught.losses(section)
        ]
        state = State(
            {
                "stage": self.name,
                "key": key,
                "section": self.section.model_dump(by_alias=True),
                "inputs": [*inputs, teacher_digest],
                "data": [train.digest, validation.digest],
                "seed": self.params.seed,
                "code": code,
                "threads": _threads(),
            }
        )
        if differing := state.differing("stage", "key"):
            processes().print(f"{self.name}: an unfinished training is there, but its {_differs(differing)}")
        with curves(self.name, resume=bool(_finished)) as log:
            fit(
                model, self.task, train, validation, settings,
                loss=terms, seed=self.params.seed, state=state, where=where, teacher=caches[0] if caches else None,
                others=caches[1:], methods=methods, on_epoch=log, on_resume=log.resumed, on_best=on_best,
            )  # fmt: skip
        _finished.append(state)
        return teacher_digest

    def _view_code(self, code: dict[str, str]) -> dict[str, str]:
        """Return the part of a stage's fingerprint that decides what the teacher sees: the task and the views."""
        package = plugins.locate("tasks", self.params.task.name).partition(":")[0].rpartition(".")[0]
        seen = ("slimline.task", "slimline.training.teacher_cache")
        return {name: code[name] for name in code if name in seen or (package and name.startswith(package))}

    def save(self, model: nn.Module, described: Artifact) -> None:
        """Write ``artifacts/STAGE``; only then forget the training state."""
        task = Named(self.params.task.name, self.params.task.args)
        whole = replace(described, task=task, stage=self.name, seed=self.params.seed, versions=artifact.versions())
        assets = None if self.name == ROOT else artifact.FOLDER / self.section.from_ / artifact.ASSETS
        files = [Path(step["file"]) for step in self.task.preprocess()["steps"] if "file" in step]
        together = processes()
        if together.is_main_process:
            artifact.save(self.output, model, whole, assets, files)
            if not (CURVES / self.name).exists():  # nothing was trained, but dvc.yaml names the folder as an output
                manifest.write_json(CURVES / self.name / "metrics.json", {"step": 0})
        together.wait_for_everyone()
        while _finished:
            _finished.pop().clear()
        together.print(f"{self.name}: {manifest.digest(self.output)}")


_finished: list[State] = []


def compression(stage: Stage) -> None:
    """Run a compression stage: its methods in order on its input, recovery, and out comes an artifact.

    With a section ``before``, the input is trained under that section's methods first.
    """
    section = stage.section
    if not isinstance(section, Compression):
        raise SlimlineError(f"{params.FILE}: {stage.name}.methods: missing; this stage compresses by methods")
    if processes().num_processes > 1:  # each would measure, and choose, for itself
        raise SlimlineError(f"{params.FILE}: {stage.name}: compresses in one process; teacher and distill take several")
    model, before, parent = stage.load(section.from_)
    unset = set() if section.before else {"before"}
    planned = {key: _configure(stage, key, chosen) for key, chosen in section.steps.items()}
    decisions = Decisions(
        DECISIONS / f"{stage.name}.json",
        {
            "input": parent,
            "section": section.model_dump(by_alias=True, exclude={"remeasure", "methods", *unset}),
            "methods": [[name, _given(method)] for steps in planned.values() for name, method, _ in steps],
            "target": stage.params.target.model_dump(),
            "data": [stage.splits[name].digest for name in ("calibration", "validation")],
        },
        remeasure=section.remeasure,
    )
    recovery = section.recovery
    trainings = {"before.methods": section.before, "methods": recovery if recovery and recovery.epochs else None}
    edits: list[Edit] = list(before.edits)
    teacher = None
    for key, steps in planned.items():
        settings = trainings[key]
        model, methods, made = _compress(stage, model, steps, decisions, trains=settings is not None)
        edits += made
        if not methods:
            print(f"{stage.name}: nothing was changed, so there is nothing to recover")
        elif settings is not None:
            teacher = stage.train(
                model, settings, key="recovery" if key == "methods" else "before",
                inputs=[parent, _short(manifest.canonical(decisions.choices))], methods=tuple(methods), taught=recovery,
            )  # fmt: skip
    decisions.write()
    stage.save(model, replace(before, edits=edits, parent=parent, teacher=teacher))


Step = tuple[str, Any, str]


def _configure(stage: Stage, key: str, chosen: list[Configured]) -> list[Step]:
    """Return (name, method, file and key) of the methods that stand under ``key``."""
    steps = []
    for index, each in enumerate(chosen):
        where = f"{params.FILE}: {stage.name}.{key}.{index}"
        method = params.configure("methods", each, where)
        check_kind(method, each.name, where)
        method.check(where)
        steps.append((each.name, method, where))
    return steps


def _given(method: Any) -> dict[str, Any]:
    """Return a method's keys but those that are unset: a key that a later version adds asks nothing anew."""
    return {key: value for key, value in asdict(method).items() if value is not None}


def _compress(
    stage: Stage, model: nn.Module, steps: list[Step], decisions: Decisions, *, trains: bool
) -> tuple[nn.Module, list[Method], list[Edit]]:
    """Compress ``model`` by methods in order.

    Returns it with the methods that changed it or join the training, and their edits.
    """
    methods, edits = [], []
    for name, method, where in steps:
        if not trains:
            check_without_training(method, name, where)
        given = model
        batches = stage.batches(stage.splits["calibration"])
        context = stage.context(where, decisions.entry(name))
        method.check_model(given, batches, context)
        model, plan = compress(method, given, batches, context)
        for note in [*plan.notes, *masks.shifted(given, model)]:
            print(f"{stage.name}: {name}: {note}")
        if plan.tensors or _structure(model) != _structure(given) or _trains(method):
            methods.append(method)
            edits.append(plan.edit)
    return model, methods, edits


def _structure(model: nn.Module) -> list[Any]:
    """Return the names and kinds of all layers and the names and shapes of all tensors."""
    layers = [(name, type(layer)) for name, layer in model.named_modules()]
    return [layers, {name: tensor.shape for name, tensor in model.state_dict().items()}]


def _trains(method: Method) -> bool:
    """Return whether a method joins in training, although it may have changed nothing yet."""
    kind = type(method)
    return kind.penalty is not Method.penalty or kind.constrain is not Method.constrain


def run(name: str, work: Callable[[Stage], None], *, timed_as: str | None = None) -> None:
    """Run a stage script: read params.yaml and the command line; errors end it in one line and exit 2, Ctrl+C likewise.

    Its time is recorded under ``timed_as``, or under ``name``.
    """
    parser = argparse.ArgumentParser(
        description=f"The {name} stage as {params.FILE} describes it; dvc.yaml says what it reads and writes."
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="use at most N rows of every split")
    options = parser.parse_args()
    with ending.in_one_line():
        settings = params.load()
        fix_randomness(settings.seed)
        with times.recorded(timed_as or name):
            try:
                work(Stage(name, settings, options.limit or settings.limit))
            except KeyboardInterrupt:
                print(f"{name}: stopped; the same command goes on, a training at its last epoch", file=sys.stderr)
                raise SystemExit(STOPPED) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)


def fix_randomness(seed: int) -> None:
    """Seed torch, and let it compute alike each time on as many threads as this process may use."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(_threads())
    torch.use_deterministic_algorithms(mode=True, warn_only=True)


def _differs(parts: dict[str, tuple[Any, Any]]) -> str:
    """Return what to say of a training that can't be gone on with."""
    verb = "differs" if len(parts) == 1 and "threads" not in parts and "inputs" not in parts else "differ"
    why = ""
    if list(parts) == ["threads"]:
        before, now = parts["threads"]
        why = f" ({before}, now {now}: OMP_NUM_THREADS={before} goes on with it)"
    return f"{', '.join(parts)} {verb}{why}; it starts anew"


def _threads() -> int:
    """Return torch's threads: OMP_NUM_THREADS, or every core this process may use. They decide the last bits."""
    if wanted := os.environ.get("OMP_NUM_THREADS"):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest_of(digests: list[str]) -> str | None:
    return f"sha256:{hashlib.sha256(manifest.canonical(digests)).hexdigest()}" if digests else None


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
