"""Everything about params.yaml that can be known before anything trains: keys, order, plug-ins, data, models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from slimline import params, pipeline, plugins, runtime_choice
from slimline.errors import ArtifactError, DataError, ParamsError, near_miss
from slimline.params import Compression, Configured, Distill, Params, Plugin, Taught

DVC_FILE = Path("dvc.yaml")


def check(path: Path = params.FILE) -> list[str]:
    """Check this folder's project and return lines that say what will run. Raises SlimlineError at a mistake."""
    document = params.read(path)
    settings = params.parse(document, path)
    order = pipeline.check_order(document, path=str(path))
    _check_dvc(settings, document)
    for kind, chosen, where in _configured(settings, path):
        configured = params.configure(kind, chosen, where)
        if kind == "methods":
            _check_method(configured, chosen.name, where, settings)
    _check_kernels(settings, path)
    for kind, name, where in _named(settings, path):
        plugins.find(kind, name, where=where)
    from slimline.export import formats

    exporters = formats.exporters(settings.export, settings.target, path)
    shown = _check_task(settings, exporters, path)
    return [f"runs: {' -> '.join(order)}", f"exports: {', '.join(settings.export.stages)}", *shown]


def _check_dvc(settings: Params, document: dict[str, Any]) -> None:
    """Every stage of params.yaml must stand in dvc.yaml, and every key that dvc.yaml reads in params.yaml."""
    if not DVC_FILE.is_file():
        raise ParamsError(f"{DVC_FILE}: not found; 'slimline init' lays it out")
    known = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8")).get("stages", {})
    for stage in settings.compressions:
        if stage not in known:
            raise ParamsError(f"{DVC_FILE}: stages.{stage}: missing, though params.yaml has a section {stage!r}")
    for stage in settings.compressions:
        _check_teachers(settings, stage, known[stage].get("deps", []))
    tracked = [key for stage in known.values() for key in stage.get("params", []) if isinstance(key, str)]
    templated = [
        key
        for key in re.findall(r"\$\{([\w.]+)\}", DVC_FILE.read_text(encoding="utf-8"))
        if not key.startswith("item.")
    ]
    for key in [*tracked, *templated]:
        at: Any = document
        for part in key.split("."):
            if isinstance(at, dict) and at.get(part, at) is None and part == "recovery":
                raise ParamsError(f"{params.FILE}: {key.rpartition('.')[0]}: null; write epochs: 0 for no recovery")
            if not isinstance(at, dict) or part not in at:
                raise ParamsError(f"{params.FILE}: {key}: missing; dvc.yaml reads it, so write it out, defaults too")
            at = at[part]
        if at is None and key in templated:
            hint = "; to recover on labels alone give the loss alpha: 0" if key.endswith("recovery.teacher") else ""
            raise ParamsError(f"{params.FILE}: {key}: null, but dvc.yaml names a folder by it: name a stage{hint}")


def _check_teachers(settings: Params, stage: str, deps: list[Any]) -> None:
    """DVC must know of every teacher. A template can't name a list, so what ``from`` and ``teacher`` lead to is enough:
    an artifact holds the digests of what it came from, so that a new teacher shows there; others want a line.
    """
    behind, taught = {pipeline.ROOT}, _taught(settings.compressions[stage])
    if taught is None:
        return
    pending = [settings.compressions[stage].from_, *(each for each in [taught.teacher] if each)]
    while pending:
        name = pending.pop()
        section = settings.compressions.get(name)
        if name not in behind and section is not None:
            pending += [section.from_, *([section.teacher] if isinstance(section, Distill) else [])]
        behind.add(name)
    for each in taught.teachers:
        line = f"artifacts/{each}/manifest.json"
        if each not in behind and line not in deps and f"artifacts/{each}" not in deps:
            raise ParamsError(f"{DVC_FILE}: stages.{stage}.deps: add {line}: params.yaml names it among the teachers")


def _taught(section: Distill | Compression) -> Taught | None:
    return section if isinstance(section, Distill) else section.recovery


def _configured(settings: Params, path: Path) -> Iterator[tuple[str, Configured, str]]:
    yield "targets", settings.monitor.undo.target, f"{path}: monitor.undo.target"
    for name, section in settings.compressions.items():
        if isinstance(section, Distill):
            yield from (("losses", *each) for each in section.losses(f"{path}: {name}"))
            continue
        for key, methods in section.steps.items():
            for index, method in enumerate(methods):
                yield "methods", method, f"{path}: {name}.{key}.{index}"
        if section.recovery is not None:
            yield from (("losses", *each) for each in section.recovery.losses(f"{path}: {name}.recovery"))


def _check_method(method: Any, name: str, where: str, settings: Params) -> None:
    """Check that a method's keys agree with each other, and that it is trained where it has to be."""
    from slimline.method import check_kind, check_without_training

    check_kind(method, name, where)
    method.check(where)
    stage, key = where.partition(": ")[2].split(".")[:2]
    section = settings.compressions[stage]
    if isinstance(section, Compression) and key == "methods" and not (section.recovery and section.recovery.epochs):
        check_without_training(method, name, where)


def _check_kernels(settings: Params, path: Path) -> None:
    """A stage that times layers as they will be once quantized must leave out those that quantize will skip."""
    for stage, section in settings.compressions.items():
        for index, chosen in enumerate(section.methods if isinstance(section, Compression) else []):
            if chosen.settings.get("kernels") != "int8":
                continue
            own = chosen.settings.get("float_layers", [])
            for later, key, skip in _skips(settings, stage):
                if skip != "auto" and sorted(skip) != sorted(own):
                    raise ParamsError(
                        f"{path}: {stage}.methods.{index}.float_layers: {own}, but {later}.{key}.skip is {skip}; name "
                        "the same layers, so that what is timed is what will run"
                    )


def _skips(settings: Params, stage: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (stage, key, skip) of every quantize method behind ``stage``."""
    from slimline.quantization.plan import Quantize

    for name, section in settings.compressions.items():
        if name == stage or stage not in _behind(settings, name) or not isinstance(section, Compression):
            continue
        for index, chosen in enumerate(section.methods):
            if issubclass(plugins.find("methods", chosen.name), Quantize):
                yield name, f"methods.{index}", chosen.settings.get("skip", [])


def _behind(settings: Params, name: str) -> list[str]:
    """Return the stages that ``name`` is made from."""
    found = []
    while name in settings.compressions:
        name = settings.compressions[name].from_
        found.append(name)
    return found


def _named(settings: Params, path: Path) -> Iterator[tuple[str, str, str]]:
    yield "runtimes", runtime_choice.default(settings.target.runtime), f"{path}: target.runtime"
    yield from (("metrics", each, f"{path}: benchmark.metrics") for each in settings.benchmark.metrics)


def _check_task(settings: Params, exporters: dict[str, Any], path: Path) -> list[str]:
    """Load the data, build each model, and run it on one row; hold formats and methods against task and models."""

    from slimline import artifact
    from slimline.task import SPLITS, tensors

    task = artifact.build_task(artifact.Named(settings.task.name, settings.task.args), f"{path}: task")
    splits = task.splits()
    if missing := [name for name in SPLITS if name not in splits or not len(splits[name])]:
        raise DataError(f"{path}: task: {settings.task.name} has no rows in split {missing[0]!r}")
    if settings.teacher.training is None and settings.teacher.weights is None:
        raise ParamsError(f"{path}: teacher.training: missing; give it, or teacher.weights")
    _check_formats(exporters, task, path)
    row = tensors(splits["validation"][slice(0, 2)][0])
    want = task.signature()["outputs"][0]["shape"][1:]
    for where, plugin in _models(settings, path):
        model = artifact.build_model(task, artifact.Named(plugin.name, plugin.args), f"{where}.model")
        if plugin is settings.teacher.model and settings.teacher.weights is not None:
            _check_weights(model, settings, path)
        out = _answers(model, row, f"{where}.model: it can't take this task's input", path)
        for axis, most in task.signature().get("axes", {}).items():
            longest = _stretched(row, task.signature(), axis, most)
            said = f"{where}.model: it can't take a row of {axis} {most}, the most of this task"
            _answers(model, longest, said, path)
        if list(out.shape[1:]) != want:
            raise ParamsError(f"{where}.model.args: outputs {list(out.shape[1:])} a row, the task wants {want}")
    _check_budget(settings, task, out.float().numpy(), splits["validation"][slice(0, 2)][1], path)
    for name in settings.compressions:
        _check_learning(settings, name, task, splits, path)
    known: dict[str, Any] = {}
    for name in settings.compressions:
        _check_methods(settings, name, task, splits, path, known)
    rows = ", ".join(_rows(name, len(split), settings.limit) for name, split in splits.items())
    return [f"data: {rows} rows", *(f"data: {note}" for note in task.notes)]


def _rows(name: str, count: int, limit: int | None) -> str:
    return f"{limit:,} of {count:,} {name}" if limit is not None and count > limit else f"{count:,} {name}"


def _answers(model: Any, row: Any, said: str, path: Path) -> Any:
    """Return what a model answers. Raises ParamsError that begins with ``said`` where it can't.

    A model may know why: what its ``refusal(inputs)`` returns is said instead.
    """
    import torch

    from slimline.task import call

    try:
        with torch.inference_mode():
            return call(model.eval(), row)
    except Exception as error:  # a model's forward raises what it likes
        if why := model.refusal(row) if hasattr(model, "refusal") else "":
            raise ParamsError(f"{path}: {why}") from error
        raise ParamsError(f"{said}: {' '.join(str(error).split())}") from error


def _stretched(row: Any, signature: dict[str, Any], axis: str, most: int) -> Any:
    """Return one row of ``most`` positions along ``axis``, each the first: a row's end may be padding."""
    found = {name: tensor[:1] for name, tensor in row.items()}
    for spec in signature["inputs"]:
        for at, named in enumerate(spec["shape"]):
            if named == axis:
                first = found[spec["name"]].narrow(at, 0, 1)
                found[spec["name"]] = first.repeat_interleave(most, at)
    return found


def _check_formats(exporters: dict[str, Any], task: Any, path: Path) -> None:
    """Let each format say what its library, or the task's inputs, will keep it from."""
    for name, exporter in exporters.items():
        if hasattr(exporter, "check"):
            exporter.check(task.signature(), f"{path}: export.formats: {name}")


def _check_weights(model: Any, settings: Params, path: Path) -> None:
    """The teacher's weights must fit its model, wholly where nothing trains it."""
    from slimline.teachers import checkpoints

    source = str(settings.teacher.weights)
    try:
        missing = checkpoints.lacking(model, source)
    except ArtifactError as error:
        raise ParamsError(f"{path}: teacher.weights: {error}") from error
    if missing and settings.teacher.training is None:
        raise ParamsError(
            f"{path}: teacher.weights: {source} has no {missing[0]} ({len(missing)} tensors in all): give "
            "teacher.training, which learns it"
        )


def _check_budget(settings: Params, task: Any, out: Any, y: Any, path: Path) -> None:
    """Every line of the budget must be about something that will be measured."""
    measured = [*task.metrics(out, y), *(name.replace("-", "_") for name in settings.benchmark.metrics)]
    for name in settings.benchmark.metrics if task.numeric else ():
        if getattr(plugins.find("metrics", name), "of_labels", False):
            raise ParamsError(f"{path}: benchmark.metrics: {name} counts labels, and this task's answers are numbers")
    if settings.budget.min_recall and not (task.labels and (y.ndim == 1 or task.independent)):
        raise ParamsError(
            f"{path}: budget.min_recall.{next(iter(settings.budget.min_recall))}: recall is measured where a row has "
            f"one label, or any of several, and this task's have neither: bound max_drop.{task.primary} instead"
        )
    wanted = settings.budget.min_speedup
    speeds = list(wanted) if isinstance(wanted, dict) else []
    lines: list[tuple[str, list[Any], list[Any]]] = [
        ("max_drop", list(settings.budget.max_drop), measured),
        ("min_speedup", speeds, settings.target.batch_sizes),
        ("min_recall", list(settings.budget.min_recall), list(task.labels or [])),
    ]
    for key, names, known in lines:
        for name in names:
            if name not in known:
                near = near_miss(str(name), [str(each) for each in known])
                shown = ", ".join(map(str, known)) or "none"
                raise ParamsError(f"{path}: budget.{key}.{name}: not measured.{near} Measured: {shown}")


def _models(settings: Params, path: Path) -> Iterator[tuple[str, Plugin]]:
    yield f"{path}: teacher", settings.teacher.model
    for name, section in settings.compressions.items():
        if isinstance(section, Distill) and section.model is not None:
            yield f"{path}: {name}", section.model


def _check_learning(settings: Params, name: str, task: Any, splits: dict[str, Any], path: Path) -> None:
    """Check a stage's losses against the task, and the layers they name against every model that is known by now."""
    from slimline.training import Objective, Term, check_terms, find_layer
    from slimline.training.losses import FeatureLoss

    section = settings.compressions[name]
    taught, training = _taught(section), section.training if isinstance(section, Distill) else section.recovery
    student = _untouched(settings, name, task, splits, path)  # a wrong ``keep`` is found here, whatever the loss
    if taught is None or training is None or not training.epochs:
        return
    at, where = (f"{name}", f"{name}.training") if taught is section else (f"{name}.recovery", f"{name}.recovery")
    terms = [
        Term(params.configure("losses", chosen, key), chosen.weight, key)
        for chosen, key in taught.losses(f"{path}: {at}")
    ]
    check_terms(terms, task, taught=bool(taught.heard), mixup=training.mixup, where=f"{path}: {where}")
    layers = [term for term in terms if isinstance(term.loss, FeatureLoss) and term.loss.layers]
    teacher = _untouched(settings, taught.heard[0], task, splits, path) if layers else None
    if teacher is None:
        return
    if student is not None:
        Objective(layers, task, student, teacher, splits["train"], settings.seed)
    for term in layers:
        for hint in term.loss.layers.values():
            find_layer(teacher, hint, "the teacher", f"{term.where}.layers")


def _check_methods(
    settings: Params, name: str, task: Any, splits: dict[str, Any], path: Path, known: dict[str, Any]
) -> Any:
    """Check a stage's methods against the layers that each will meet, and return a model with those it leaves.

    None: that is known only once something ran. ``known`` holds the stages that are done.
    """
    if name in known:
        return known[name]
    section = settings.compressions.get(name)
    if not isinstance(section, Compression):
        goes_on = section is not None and section.model is None and section.keep is None
        known[name] = (
            _check_methods(settings, section.from_, task, splits, path, known)
            if section is not None and goes_on
            else _untouched(settings, name, task, splits, path)
        )
        return known[name]
    model = _check_methods(settings, section.from_, task, splits, path, known)
    batch = _batch(splits)
    for key, methods in section.steps.items():
        for index, chosen in enumerate(methods):
            if model is None:
                break
            where = f"{path}: {name}.{key}.{index}"
            method, context = params.configure("methods", chosen, where), _context(settings, task, splits, where)
            method.check_model(model, lambda: [batch], context)
            model = method.foresee(model, lambda: [batch], context)
    known[name] = model
    return model


def _batch(splits: dict[str, Any]) -> Any:
    """Return two calibration rows as a batch."""
    from slimline.task import tensors

    inputs, y = splits["calibration"][slice(0, 2)]
    return tensors(inputs), tensors({"y": y})["y"]


def _context(settings: Params, task: Any, splits: dict[str, Any], where: str) -> Any:
    from slimline.decisions import Decisions
    from slimline.method import Context

    parts = splits["calibration"], splits["validation"]
    return Context(task, *parts, settings.target, Decisions(None, {}), where=where)


def _untouched(settings: Params, name: str, task: Any, splits: dict[str, Any], path: Path) -> Any:
    """Build the model of a stage before its training, or return None behind a compression, which decides when it runs.

    Raises MethodError where ``keep`` names blocks that can't go.
    """
    from slimline import artifact
    from slimline.method import compress

    if name == pipeline.ROOT:
        named = settings.teacher.model
        return artifact.build_model(task, artifact.Named(named.name, named.args), f"{path}: {name}.model")
    section = settings.compressions[name]
    if not isinstance(section, Distill):
        return None
    if section.model is not None:
        return artifact.build_model(
            task, artifact.Named(section.model.name, section.model.args), f"{path}: {name}.model"
        )
    model = _untouched(settings, section.from_, task, splits, path)
    if model is None or section.keep is None:
        return model
    chosen = Configured.model_validate({"name": "drop-layers", "keep": section.keep})
    method = params.configure("methods", chosen, f"{path}: {name}")
    batch, context = _batch(splits), _context(settings, task, splits, f"{path}: {name}")
    return compress(method, model, lambda: [batch], context)[0]
