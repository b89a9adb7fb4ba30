"""The chain as data: who reads whom, what is exported, and a fingerprint of the code that each stage runs.

Order lives in params.yaml (each section's ``from``); ``dvc.yaml`` templates its dependencies from the same keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from slimline import plugins, runbooks, runtime_choice, tables
from slimline.errors import ParamsError, PluginError, near_miss
from slimline.file_index import FileIndex
from slimline.manifest import sha256
from slimline.own_data import listed_files
from slimline.source_code import imports_of, reached, read_code

ROOT = "teacher"
EXPORTS = Path("exports")
CODE = (".py", ".pyc", ".typed")
MEASURES = ("latency", "benchmark", "report", "release")


def inputs(document: Mapping[str, Any], stage: str) -> list[str]:
    """Return the stages that ``stage`` reads: its ``from`` first, then its teachers."""
    if stage == ROOT:
        return []
    section = document[stage]
    taught = section if "methods" not in section else section.get("recovery") or {}
    teacher = taught.get("teacher", ROOT if taught is section else None)
    return list(dict.fromkeys(each for each in (section["from"], teacher, *(taught.get("teachers") or [])) if each))


def stages(document: Mapping[str, Any]) -> list[str]:
    """Return the teacher and every section with a ``from``, in file order."""
    return [ROOT, *(key for key, value in document.items() if isinstance(value, Mapping) and "from" in value)]


def ancestors(document: Mapping[str, Any], stage: str, *, path: str = "params.yaml") -> list[str]:
    """Return every stage that ``stage`` needs, in an order that can run, ``stage`` last.

    Raises ParamsError on a name that is no stage and on a circle.
    """
    known = stages(document)
    order: list[str] = []

    def visit(name: str, trail: tuple[str, ...], key: str) -> None:
        if name not in known:
            raise ParamsError(f"{path}: {key}: no stage {name!r}.{near_miss(name, known)} Stages: {', '.join(known)}")
        if name in trail:
            circle = " -> ".join([*trail[trail.index(name) :], name])
            raise ParamsError(f"{path}: {key}: the stages make a circle: {circle}; change one 'from'")
        if name in order:
            return
        for index, parent in enumerate(inputs(document, name)):
            visit(parent, (*trail, name), f"{name}.from" if index == 0 else f"{name}: teacher")
        order.append(name)

    visit(stage, (), "export.stages")
    return order


def chain(document: Mapping[str, Any], stage: str) -> list[str]:
    """Return the models that became ``stage``: from the teacher along each ``from``."""
    line = [stage]
    while line[-1] != ROOT:
        before = (document.get(line[-1]) or {}).get("from")
        if before is None or before in line:
            ancestors(document, stage)  # says what is wrong
            raise ParamsError(f"params.yaml: {line[-1]}.from: {before!r} leads to no teacher")
        line.append(before)
    return line[::-1]


def last(document: Mapping[str, Any], *, path: str = "params.yaml") -> str:
    """Return the exported stage that no other exported stage is made from. Two such are an error."""
    exported = list(document["export"]["stages"])
    made_from = {each for stage in exported for each in chain(document, stage)[:-1]}
    ends = [stage for stage in exported if stage not in made_from]
    if len(ends) != 1:
        raise ParamsError(
            f"{path}: export.stages: {' and '.join(ends)} are both last; a release has one end: export one of them"
        )
    return str(ends[0])


def check_order(document: Mapping[str, Any], *, path: str = "params.yaml") -> list[str]:
    """Check names, circles and the single end, and return the stages that a run needs, in order."""
    exported = document["export"]["stages"]
    if duplicate := next((each for each in exported if exported.count(each) > 1), None):
        raise ParamsError(f"{path}: export.stages: {duplicate!r} stands there twice")
    if ROOT not in exported:
        raise ParamsError(f"{path}: export.stages: add {ROOT!r}: every number is measured against it")
    for stage in stages(document):
        ancestors(document, stage, path=path)
    order: list[str] = []
    for stage in exported:
        order.extend(each for each in ancestors(document, stage, path=path) if each not in order)
    last(document, path=path)
    return order


# --- fingerprints: which code a stage runs ---------------------------------------------------------------------------


def code(document: Mapping[str, Any], stage: str) -> dict[str, list[str]]:
    """Return the plug-ins that ``stage`` uses, by kind, as params.yaml names them."""
    used: dict[str, list[str]] = {"tasks": [document["task"]["name"]]}
    exported = stage.removeprefix("export@")
    if exported != stage:
        made_by = code(document, exported)
        used |= {"models": made_by["models"], "methods": made_by["methods"]}
        formats = document["export"].get("formats", ["onnx"])
        used["exporters"] = [each["name"] if isinstance(each, Mapping) else each for each in formats]
    if stage not in stages(document):
        if exported != stage:
            used["runtimes"] = [runtime_choice.default(_runtime(document))]
        elif stage in {"latency", "benchmark"}:
            threads = (document.get("target") or {}).get("threads", 1)
            used["runtimes"] = runtime_choice.candidates(_runtime(document), threads)
        if stage == "benchmark":
            used["metrics"] = list((document.get("benchmark") or {}).get("metrics", []))
        return used
    used["models"], used["methods"] = [], []
    for each in ancestors(document, stage):
        section = document[each] or {}
        used["models"] += [name for name in [_section_model(document, each)] if name]
        for holder in (section.get("before") or {}, section):
            used["methods"] += [method["name"] for method in holder.get("methods", [])]
            if any(method.get("of") == "latency" for method in holder.get("methods", [])):
                used["methods"].append("linear")  # layer_times may quantize by it, which no import shows
        used["methods"] += ["drop-layers"] if section.get("keep") else []
    section = document[stage]
    taught = section if "methods" not in section else section.get("recovery") or {}
    used["losses"] = _losses(taught.get("loss") or {})
    return used


def _runtime(document: Mapping[str, Any]) -> str:
    return str((document.get("target") or {}).get("runtime", runtime_choice.DEFAULT))


def _losses(chosen: Any) -> list[str]:
    several = chosen if isinstance(chosen, list) else [chosen]
    return [str(each.get("name", "soft-targets")) if isinstance(each, Mapping) else str(each) for each in several]


def _section_model(document: Mapping[str, Any], stage: str) -> str:
    return str(((document.get(stage) or {}).get("model") or {}).get("name", ""))


def fingerprint(
    document: Mapping[str, Any], stage: str, scripts: Path = Path("stages"), index: FileIndex | None = None
) -> dict[str, str]:
    """Return {module: sha256} of all first-party code that ``stage`` can run.

    First-party is what belongs to the project: Slimline, the distributions that offer a plug-in it uses, and the
    modules beside them, with the data files (templates) of a package; also the files the task's data come from.
    Comments, docstrings and blank lines don't count. Nothing is imported. ``index`` remembers unchanged files.
    """
    index = index or FileIndex()
    roots = {"slimline"}
    pending: list[str] = []
    for kind, names in code(document, stage).items():
        for name in names:
            try:
                module = plugins.locate(kind, name, where=f"params.yaml: {stage}").partition(":")[0]
            except PluginError as error:
                raise ParamsError(str(error)) from error
            roots.add(module.partition(".")[0])
            pending.append(module)
    pending += _implied({module.partition(".")[0] for module in pending})
    script = scripts / f"{stage.partition('@')[0]}.py"
    prints: dict[str, str] = {}
    if script.is_file():
        prints[script.name], found = index.facts(script, read_code)
        pending.extend(imports_of(found, "", is_package=False))
    prints |= {str(path): index.facts(path, sha256) for path in data(document, stage, index)}
    prints |= closure(pending, roots, index, runtime=runtime_choice.default(_runtime(document)))
    return dict(sorted(prints.items()))


def closure(
    modules: Iterable[str], roots: Collection[str], index: FileIndex, *, runtime: str = "onnxruntime"
) -> dict[str, str]:
    """Return {module: sha256} of ``modules`` and all that importing them runs of the packages ``roots``.

    Data files beside an ``__init__.py`` count too. Nothing is imported.
    """
    prints: dict[str, str] = {}

    def read(path: Path) -> list[Any]:
        found: list[Any] = index.facts(path, read_code)
        return found

    def unseen(module: str) -> list[str]:
        if module != "slimline.measure":  # it exports and times layers through plug-ins, which no import shows
            return []
        used = (plugins.locate("exporters", "onnx"), plugins.locate("runtimes", runtime))
        return [target.partition(":")[0] for target in used]

    for name, source, prints[name] in reached(modules, roots, read, unseen):
        if source.name == "__init__.py":
            beside = (path for path in sorted(source.parent.iterdir()) if path.is_file() and path.suffix not in CODE)
            prints |= {f"{name}/{path.name}": index.facts(path, sha256) for path in beside}
        if name == "slimline.monitoring.rules":  # alerts carry the text of their runbooks
            pages = sorted(runbooks.folder().glob("*.md"))
            prints |= {f"runbooks/{path.name}": index.facts(path, sha256) for path in pages}
    return prints


def _implied(packages: set[str]) -> list[str]:
    """Return modules of metrics and preprocessing steps that foreign packages in use offer: tasks only name them."""
    offers = [*plugins.offers("metrics"), *plugins.offers("preprocess")]
    modules = [offer.target.partition(":")[0] for offer in offers]
    return [module for module in modules if module.partition(".")[0] in packages - {"slimline"}]


def data(document: Mapping[str, Any], stage: str, index: FileIndex | None = None) -> list[Path]:
    """Return the files that the task (and the teacher's weights and configuration) come from.

    These are ``data/TASK`` and every path among the task's arguments; a folder counts with all files in it, a table
    with those that it names.
    """
    named: list[Any] = [f"data/{document['task']['name']}"]
    for value in (document["task"].get("args") or {}).values():
        named += value.values() if isinstance(value, Mapping) else [value]
    if stage == ROOT:
        section = document[ROOT] or {}
        named += [section.get("weights"), *((section.get("model") or {}).get("args") or {}).values()]
    roots = [Path(each) for each in named if isinstance(each, str) and each and Path(each).exists()]
    found = [
        path for root in roots for path in (sorted(root.rglob("*")) if root.is_dir() else [root]) if path.is_file()
    ]
    for root in roots:
        if root.suffix.lower() in tables.SUFFIXES and root.is_file():
            found += listed_files.beside(root, index or FileIndex())
    return list(dict.fromkeys(found))
