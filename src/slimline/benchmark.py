"""Quality of every exported stage on the test split, against the teacher's, with paired intervals. Needs no torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimline import intervals, plugins, runtime_choice
from slimline.predictor import Arrays, Predictor

if TYPE_CHECKING:
    from slimline.task import Split, Task

FORMAT = 1
FILE = Path("metrics/benchmark.json")
BATCH = 500
RESAMPLES = 400


def engine_targets(
    facts: Mapping[str, Mapping[str, Any]], threads: int, ran: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the ``targets`` of engines: {"LIBRARY/FORMAT/tN": stages, status: run, or built where no GPU is}.

    ``facts`` are {stage: facts.json}, ``ran`` {stage: speed and quality} of those that this machine's GPU ran.
    """
    targets: dict[str, Any] = {}
    for stage, own in facts.items():
        for name, written in own.get("formats", {}).items():
            if written["status"] == "built":
                library = written["library"].partition(" ")[0]
                status = "run" if ran else "built"
                target = targets.setdefault(f"{library}/{name}/t{threads}", {"stages": {}, "status": status})
                row = {key: written[key] for key in ("bytes", "compute", "profile", "library")}
                target["stages"][stage] = row | dict(ran.get(stage, {}))
    return targets


def outputs(predictor: Predictor, inputs: Mapping[str, NDArray[Any]], batch: int = BATCH) -> NDArray[Any]:
    """Return the first output for every row of ``inputs``, N first, ``batch`` rows at a time."""
    starts = range(0, len(next(iter(inputs.values()))), batch)
    parts = ({name: array[start : start + batch] for name, array in inputs.items()} for start in starts)
    return np.concatenate([next(iter(predictor.predict(part).values())) for part in parts])


def of_split(run: Callable[[Arrays], Arrays], split: Split, runtime: str) -> NDArray[Any]:
    """Return the first output of ``run``, which ``runtime`` answers, for every row of ``split``, N first.

    Where the runtime takes several callers, a model that is served by one thread is asked from all cores, and answers
    each as it does by one.
    """
    return split.outputs(lambda inputs: next(iter(run(inputs).values())), runtime_choice.callers(runtime))


def quality(
    task: Task, split: Split, base: NDArray[Any], own: NDArray[Any], confidence: float, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Return metrics of ``own`` outputs and their drops from ``base`` outputs on the same test rows.

    The drop of a metric that is the share of correct answers gets Newcombe's interval, any other a paired bootstrap. A
    score in which no resample differs gets Newcombe's too: few rows without an error don't prove that none will come.
    Keys: each metric; for the primary P also ``P_drop`` and ``drop_ci``, and ``P_ci`` where it is the share of correct
    answers; ``drops`` {metric: {drop, ci}}; ``lower_is_better``, the metrics whose drop is a rise;
    ``agreement`` and ``agreement_ci`` with the teacher; ``per_class`` where the task has labels, if each row has one of
    them with the ``agreement`` on the rows to which the teacher gives that label.
    """
    y = split.targets
    answers = {"base": task.answer(base), "own": task.answer(own)}
    chosen = {
        name.replace("-", "_"): plugins.find("metrics", name, where="params.yaml: benchmark.metrics") for name in extra
    }

    def measured(out: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
        own_metrics = task.metrics(out, target)
        return own_metrics | {name: float(metric()(task.answer(out), target)) for name, metric in chosen.items()}

    values, before = measured(own, y), measured(base, y)
    row: dict[str, Any] = dict(values)
    hits = {name: task.correct(answer, y) for name, answer in answers.items()}
    drops: dict[str, dict[str, Any]] = {}
    shares = {"base": float(np.mean(hits["base"])), "own": float(np.mean(hits["own"]))}
    is_share = {name: bool(np.allclose([before[name], values[name]], [*shares.values()])) for name in values}
    boots = _bootstrap(measured, base, own, y, [name for name in values if not is_share[name]], confidence)
    newcombe = intervals.paired_drop(hits["base"], hits["own"], confidence)
    row["lower_is_better"] = []
    for name, value in values.items():
        if name in chosen and name not in task.metrics(own[:1], y[:1]):
            higher = bool(getattr(chosen[name], "higher_is_better", True))
        else:
            higher = task.higher_is_better_of(name)
        if not higher:
            row["lower_is_better"].append(name)
        sign = 1 if higher else -1
        ci = newcombe if is_share[name] else sorted(sign * bound for bound in boots[name])
        if ci[0] == ci[1] and 0 <= before[name] <= 1 and 0 <= value <= 1:
            ci = newcombe
        drops[name] = {"drop": sign * (before[name] - value), "ci": ci}
    primary = task.primary
    if is_share[primary]:
        row[f"{primary}_ci"] = intervals.share(hits["own"], confidence)
    row[f"{primary}_drop"], row["drop_ci"], row["drops"] = drops[primary]["drop"], drops[primary]["ci"], drops
    agrees = task.agree(answers["base"], answers["own"])
    row["agreement"], row["agreement_ci"] = float(np.mean(agrees)), intervals.share(agrees, confidence)
    if table := _by_label(task, answers, hits, agrees, y, confidence):
        row["per_class"] = table
    return row


def _by_label(
    task: Task,
    answers: Mapping[str, NDArray[Any]],
    hits: Mapping[str, NDArray[np.bool_]],
    agrees: NDArray[np.bool_],
    y: NDArray[Any],
    confidence: float,
) -> dict[str, dict[str, Any]]:
    """Return ``per_class``; empty where rows have neither one label nor any of several."""
    if task.labels and y.ndim == 1:
        table = per_class(task.labels, hits["base"], hits["own"], y, confidence)
        for index, label in enumerate(task.labels):
            rows = answers["base"] == index
            if label in table and rows.any():
                table[label]["agreement"] = float(np.mean(agrees[rows]))
        return table
    if task.labels and task.independent and answers["base"].shape == y.shape:
        return per_label(task.labels, answers["base"] > 0, answers["own"] > 0, y, confidence)
    return {}


def _bootstrap(
    measured: Any, base: NDArray[Any], own: NDArray[Any], y: NDArray[Any], names: Sequence[str], confidence: float
) -> dict[str, list[float]]:
    if not names:
        return {}
    rng = np.random.default_rng(0)
    drops: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(y), len(y))
        a, b = measured(base[rows], y[rows]), measured(own[rows], y[rows])
        for name in names:
            drops[name].append(a[name] - b[name])
    return {name: intervals.percentile(values, confidence) for name, values in drops.items()}


def per_class(
    labels: Sequence[str], base: NDArray[np.bool_], own: NDArray[np.bool_], y: NDArray[Any], confidence: float
) -> dict[str, dict[str, Any]]:
    """Return recall and its drop from the teacher's, with intervals, for each label that occurs.

    ``base`` and ``own`` say of each row whether the teacher and the model answer it rightly, ``y`` is its label's
    number [N]. The keys are those of ``recalls``.
    """
    has = {label: y == index for index, label in enumerate(labels)}
    return recalls({label: (base[rows], own[rows]) for label, rows in has.items()}, confidence)


def per_label(
    labels: Sequence[str], base: NDArray[np.bool_], own: NDArray[np.bool_], y: NDArray[Any], confidence: float
) -> dict[str, dict[str, Any]]:
    """Return the same where a row has any of several labels: the recall of a label is its share of answers among the
    rows that have it, TP / (TP + FN). A label that is answered where it doesn't belong shows in F1 alone.

    ``base`` and ``own`` [N × labels] are the labels answered by the teacher and the model, ``y`` those a row has (> 0).
    """
    has = {label: y[:, index] > 0 for index, label in enumerate(labels)}
    hits = {label: (base[rows, at], own[rows, at]) for at, (label, rows) in enumerate(has.items())}
    return recalls(hits, confidence)


def recalls(
    hits: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], confidence: float
) -> dict[str, dict[str, Any]]:
    """Return the recall of each label that occurs; ``hits`` {label: (the teacher's, the model's)} of rows that have it.

    ``p`` is McNemar's exact p-value of the drop, ``p_holm`` that adjusted for all labels of this stage by Holm's
    method. ``harmed``: the drop is above 0 and stands against chance over all labels at ``confidence``. Each interval
    alone holds at ``confidence``; over many labels some miss 0 by chance.
    """
    table: dict[str, dict[str, Any]] = {}
    for label, (base, own) in hits.items():
        if len(own):
            table[label] = {
                "rows": len(own),
                "recall": float(np.mean(own)),
                "recall_ci": intervals.share(own, confidence),
                "drop": float(np.mean(base) - np.mean(own)),
                "drop_ci": intervals.paired_drop(base, own, confidence),
                "p": intervals.mcnemar(base, own),
            }
    adjusted = intervals.holm([row["p"] for row in table.values()])
    for row, p in zip(table.values(), adjusted, strict=True):
        row["p_holm"] = p
        row["harmed"] = bool(row["drop"] > 0 and p <= 1 - confidence)
    return table


def machine() -> dict[str, Any]:
    """Return what decides speed on this machine: processor, cores, instructions, system, runtime version."""
    from importlib.metadata import version
    from importlib.util import find_spec

    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        name, flags = facts.get("model name", name), facts.get("flags", facts.get("Features", ""))
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "instructions": [each for each in wanted if each in flags.split()],
        "system": platform.system(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        **{name: version(name) for name in ("openvino",) if find_spec(name)},
    }


def peak_rss_mb(directory: Path, batch: int, threads: int, runtime: str = "auto") -> float:
    """Return the peak resident memory in MiB of a fresh process that loads the export and answers one batch."""
    code = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from slimline.predictor import Predictor\n"
        "p = Predictor(sys.argv[1], runtime=sys.argv[4], threads=int(sys.argv[3]))\n"
        "axes = p.signature.get('axes', {})\n"
        "shapes = {s['name']: (s['dtype'], [axes.get(n, int(sys.argv[2])) if isinstance(n, str) else n"
        " for n in s['shape']])"
        " for s in p.signature['inputs']}\n"
        "p.predict({name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()})\n"
        "status = Path('/proc/self/status')\n"
        "lines = status.read_text().splitlines() if status.exists() else []\n"
        # getrusage counts what the parent held when it forked; the kernel's own high-water mark starts at exec
        "marks = [int(line.split()[1]) for line in lines if line.startswith('VmHWM')]\n"
        "print((marks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024)\n"
    )
    command = [sys.executable, "-c", code, str(directory), str(batch), str(threads), runtime]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 1)
