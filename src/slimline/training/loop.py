"""THE training loop: teacher, student and every recovery run through ``fit``.

An epoch is a function of (seed, epoch) and the weights it starts from, so a run that was killed goes on at its last
epoch and ends in the same weights, bit for bit on a CPU with the same number of threads.

Under ``torchrun`` or ``accelerate launch`` several processes share each batch (DDP): the gradient is that of the whole
batch where its loss is a mean over rows and no layer norms over the batch. The first process writes all files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, broadcast, broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from slimline import metrics
from slimline.errors import TrainingError
from slimline.method import Method
from slimline.params import Training
from slimline.pruning import masks
from slimline.task import Split, Task
from slimline.training import optimizers
from slimline.training.feeding import ask_for_determinism, made, sent
from slimline.training.objective import Loss, Objective, Term, check_terms
from slimline.training.processes import on_cpu
from slimline.training.resume import State
from slimline.training.teacher_cache import TeacherCache, is_mixed, view_batch, view_of


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind: mean training loss, validation metrics, the last learning rate.

    ``validation_loss`` is there where the best epoch is found by it.
    """

    epoch: int
    loss: float
    validation: dict[str, float]
    lr: float
    validation_loss: float | None = None


def fit(
    model: nn.Module,
    task: Task,
    train: Split,
    validation: Split,
    settings: Training,
    *,
    loss: Loss | Sequence[Term],
    seed: int,
    state: State,
    where: str,
    teacher: TeacherCache | None = None,
    others: Sequence[TeacherCache] = (),
    methods: Sequence[Method] = (),
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_resume: Callable[[int], None] = lambda _: None,
    on_best: Callable[[NDArray[np.float32]], None] = lambda _: None,
) -> list[Epoch]:
    """Train ``model`` in place and leave it with the weights of its best validation epoch.

    ``where`` is the file and key of ``settings``, named in errors. ``loss`` is one loss or several with weights;
    ``others`` are teachers beside ``teacher``, whose answers count as much. ``methods`` may add a penalty to the loss
    and a constraint after each step; masks hold whatever the methods are. ``on_epoch`` is called once for each epoch,
    those of a resumed run included, which ``on_resume`` hears the number of first; ``on_best`` with the outputs on
    validation rows of each that is the best so far, by the process that measured them.
    Raises TrainingError at a loss that is not finite; the best weights so far are then kept beside the state.
    """
    terms = [Term(loss)] if callable(loss) else loss
    check_terms(terms, task, taught=teacher is not None, mixup=settings.mixup, where=where)
    AcceleratorState._reset_state()  # noqa: SLF001  (it holds a process to its first precision otherwise)
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)  # a pooler that mean pooling leaves out
    whole = DataLoaderConfiguration(split_batches=True)  # a step is one of the schedule's, however many share it
    accelerator = Accelerator(
        cpu=on_cpu(), mixed_precision=settings.precision, kwargs_handlers=[parallel], dataloader_config=whole
    )
    ask_for_determinism(accelerator.device)
    home = next(model.parameters()).device
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(accelerator.device, memory_format=memory_format)  # type: ignore[call-overload]
    steps = math.ceil(len(train) / settings.batch_size)
    objective = Objective(terms, task, model, teacher.teacher if teacher else None, train, seed)
    if accelerator.num_processes > 1 and any(True for _ in objective.regressors.parameters()):
        raise TrainingError(f"{where}: a loss with a regressor of its own trains in one process only")
    optimizer = optimizers.optimizer([model, objective.regressors], settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(settings, steps * settings.epochs))
    taught = [teacher, *others] if teacher else []
    follows = objective if settings.best == "loss" else None
    watched = _Watched(task, validation, follows, taught, settings.batch_size, accelerator.device)
    run = _Run(0, [], -1, copy.deepcopy(model.state_dict()))
    if saved := state.load():
        run = _restore(saved, model, optimizer, schedule, objective)
        on_resume(run.epoch)
        for past in run.history:
            on_epoch(past)
    prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    while run.epoch < settings.epochs and not _stalled(run, settings):
        mean_loss = _train_epoch(
            model, prepared, task, train, settings, optimizer, schedule,
            accelerator=accelerator, objective=objective, seed=seed, run=run, where=where,
            teachers=taught, methods=methods, steps=steps, state=state,
        )  # fmt: skip
        measured, validation_loss = _measured(model, watched, accelerator)
        record = Epoch(run.epoch, mean_loss, measured, schedule.get_last_lr()[0], validation_loss)
        run.history.append(record)
        best = run.history[run.best] if run.best >= 0 else None
        if _settled(methods, run, settings, steps) and (best is None or watched.better(record, best)):
            run.best, run.best_weights = run.epoch, copy.deepcopy(model.state_dict())
            if accelerator.is_main_process:
                on_best(watched.outputs)
        run.epoch += 1
        if accelerator.is_main_process:
            state.save(_snapshot(run, model, optimizer, schedule, objective))
        on_epoch(record)
    model.load_state_dict(run.best_weights)
    model.to(home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    return run.history


@dataclass
class _Run:
    epoch: int
    history: list[Epoch]
    best: int
    best_weights: dict[str, Tensor]


def _train_epoch(
    model: nn.Module,
    prepared: nn.Module,
    task: Task,
    train: Split,
    settings: Training,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    *,
    accelerator: Accelerator,
    objective: Objective,
    seed: int,
    run: _Run,
    where: str,
    teachers: Sequence[TeacherCache],
    methods: Sequence[Method],
    steps: int,
    state: State,
) -> float:
    torch.manual_seed((accelerator.process_index << 40) + (seed << 20) + run.epoch)  # dropout and the like
    number = run.epoch % settings.views if settings.views else run.epoch
    mixed = is_mixed(number, settings.mixup)
    view = view_of(task, len(train), seed, number, mixed=mixed)
    heard = teachers if objective.reads_outputs else []
    with accelerator.main_process_first():  # the others find them on disk
        answers = [teacher.view(number, mixed=mixed, device=accelerator.device) for teacher in heard]
    prepared.train()
    total = 0.0
    name = where.partition(": ")[2].partition(".")[0]

    def batch(which: tuple[NDArray[np.int64], float, int]) -> tuple[dict[str, Tensor], Tensor | None, list[Tensor]]:
        rows, device = which[0], accelerator.device
        inputs, y = view_batch(task, train, rows, view)
        targets = [sent(torch.from_numpy(each[rows]), device) for each in answers]
        return (
            {key: sent(value, device) for key, value in inputs.items()},
            None if y is None else sent(y, device),
            targets,
        )

    batches = _batches(len(train), settings.batch_size, seed, run.epoch, accelerator)
    bar = tqdm(
        made(batches, batch, ahead=accelerator.device.type == "cuda"),
        desc=f"{name} epoch {run.epoch + 1}/{settings.epochs}", total=steps, leave=False, disable=None,
    )  # fmt: skip
    masked = masks.masked(model)
    for step, ((_, share, count), (inputs, y, targets)) in enumerate(bar):
        with accelerator.autocast():
            value = objective(prepared, inputs, y, targets)
            value = value if share == 1 else share * value
            for method in methods:
                penalty = method.penalty(model)
                value = value if penalty is None else value + penalty
        seen = float(value.detach())
        if not math.isfinite(seen):
            raise _not_finite(seen, run, step, where, state)
        optimizer.zero_grad()
        accelerator.backward(value)
        if settings.clip_norm:
            accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        schedule.step()
        for method in methods:
            method.constrain(model, run.epoch * steps + step + 1, settings.epochs * steps)
        masks.enforce(masked)
        total += seen * count
        bar.set_postfix(loss=f"{seen:.4f}", refresh=False)
    if accelerator.num_processes > 1:
        total = float(accelerator.reduce(torch.tensor(total, device=accelerator.device), "mean"))
    return total / len(train)


def _batches(
    count: int, size: int, seed: int, epoch: int, accelerator: Accelerator
) -> Iterator[tuple[NDArray[np.int64], float, int]]:
    """Yield (this process's row numbers, their weight, how many rows the batch has), ordered by (seed, epoch).

    Gradients are averaged over processes: a mean over fewer rows than others have weighs less. A process that would
    have none takes one with weight 0, since all must take each step.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    for start in range(0, count, size):
        batch = order[start : start + size]
        own = batch[accelerator.process_index :: accelerator.num_processes]
        yield own if len(own) else batch[:1], accelerator.num_processes * len(own) / len(batch), len(batch)


@dataclass
class _Watched:
    """The validation rows after each epoch: the task's metrics, and where ``objective`` is given its loss."""

    task: Task
    rows: Split
    objective: Objective | None
    teachers: Sequence[TeacherCache]
    batch: int
    device: torch.device
    outputs: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))  # as last measured

    @cached_property
    def _answers(self) -> list[NDArray[np.float32]]:
        assert self.objective is not None  # noqa: S101  (asked for its loss alone)
        if not self.objective.reads_outputs:
            return []
        return [each.of(self.rows, self.device) for each in self.teachers]

    def measure(self, model: nn.Module) -> tuple[dict[str, float], float | None]:
        out = self.outputs = metrics.outputs(model, self.rows)
        found = self.task.metrics(out, self.rows.targets)
        return found, None if self.objective is None else self._loss(self.objective, out)

    @torch.no_grad()
    def _loss(self, objective: Objective, out: NDArray[np.float32]) -> float:
        total = 0.0
        for start in range(0, len(out), self.batch):
            rows = slice(start, start + self.batch)
            y = torch.from_numpy(np.ascontiguousarray(self.rows.targets[rows]))
            answers = [torch.from_numpy(each[rows]) for each in self._answers]
            total += len(y) * objective.of_outputs(torch.from_numpy(out[rows]), y, answers)
        return total / len(out) if math.isfinite(total) else math.inf

    def better(self, a: Epoch, b: Epoch) -> bool:
        if a.validation_loss is not None and b.validation_loss is not None:
            return a.validation_loss < b.validation_loss
        return self.task.better(a.validation[self.task.primary], b.validation[self.task.primary])


def _measured(model: nn.Module, watched: _Watched, accelerator: Accelerator) -> tuple[dict[str, float], float | None]:
    """Return what the first process measures, so that all keep the same epochs and stop at the same one.

    Weights are alike in all of them, running statistics only once they are shared.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.contiguous()))
    found: list[Any] = [watched.measure(model) if accelerator.is_main_process else None]
    broadcast_object_list(found)
    measured: tuple[dict[str, float], float | None] = found[0]
    return measured


def warmup_cosine(settings: Training, total: int) -> Callable[[int], float]:
    """Return lr's factor by step: linear from 0 over the ``warmup`` share of the steps, then a half cosine to 0."""
    warm = max(1, round(settings.warmup * total))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    return factor


def _settled(methods: Sequence[Method], run: _Run, settings: Training, steps: int) -> bool:
    """Return whether the epoch that just ended may be kept: no method's schedule is still on its way."""
    end = run.epoch + 1
    return end == settings.epochs or all(each.settled(end * steps, settings.epochs * steps) for each in methods)


def _stalled(run: _Run, settings: Training) -> bool:
    return settings.patience is not None and run.best >= 0 and run.epoch - 1 - run.best >= settings.patience


def _snapshot(run: _Run, model: nn.Module, optimizer: Any, schedule: Any, objective: Objective) -> dict[str, Any]:
    return {
        "epoch": run.epoch,
        "history": [asdict(each) for each in run.history],
        "best": run.best,
        "best_weights": run.best_weights,
        "model": model.state_dict(),
        "regressors": objective.regressors.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"},
    }


def _restore(saved: dict[str, Any], model: nn.Module, optimizer: Any, schedule: Any, objective: Objective) -> _Run:
    model.load_state_dict(saved["model"])
    objective.regressors.load_state_dict(saved["regressors"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict({**saved["schedule"], "lr_lambdas": [None] * len(optimizer.param_groups)})
    history = [Epoch(**each) for each in saved["history"]]
    return _Run(saved["epoch"], history, saved["best"], saved["best_weights"])


def _not_finite(number: float, run: _Run, step: int, where: str, state: State) -> TrainingError:
    from safetensors.torch import save_file

    kept: Path | None = None
    if run.best >= 0:
        state.folder.mkdir(parents=True, exist_ok=True)
        kept = state.folder / "last-good.safetensors"
        # By whichever process saw it: all have the same weights, and safetensors replaces a file whole.
        save_file({name: tensor.contiguous() for name, tensor in run.best_weights.items()}, kept)
    saved = f"the weights of epoch {run.best + 1} are kept in {kept}" if kept else "no epoch was finished before"
    return TrainingError(
        f"{where}: the loss became {number} at epoch {run.epoch + 1}, step {step + 1}; {saved}; lower lr"
    )
