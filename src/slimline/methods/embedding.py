"""Embedding factorization: a table of tokens becomes a thinner one and a matrix that widens what was looked up.

    E [V × d] ≈ A·B,  A [V × r], B [r × d];   pays only if r < V·d / (V + d)      (Lan et al. 2020, arXiv:1909.11942)

What counts are the rows that are read: with f_t how often calibration rows have token t, plus a floor for those that
they lack,

    min Σ_t f_t·‖E_t − (A·B)_t‖²  =  Σ of the squared singular values of diag(√f)·E beyond the r-th

reached by its right singular vectors V_r: A = E·V_r·Σ_r^-½, B = Σ_r^½·V_rᵀ (Eckart & Young 1936; weights as in Chen et
al. 2018, GroupReduce, arXiv:1806.06950). In ONNX it is a Gather and a MatMul.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.errors import MethodError
from slimline.factorization.ranks import rank_of_energy
from slimline.method import Batches, Context, Edit, Method, Plan, compress
from slimline.params import Count, Fraction
from slimline.quantization.quantizers import QuantizedEmbedding, replace
from slimline.task import call

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Embedding(Method):
    """``rank`` is r, or ``energy`` the share of the weighted squares that the smallest r keeps.

    ``tables`` are globs of embeddings (null: the one with the most weights); ``floor`` is added to each token's count.
    Only a plain nn.Embedding without ``max_norm``, whose weight has one name, can be factorized.
    """

    rank: Count | None = None
    energy: Fraction | None = None
    tables: list[str] | None = None
    floor: Annotated[float, Field(gt=0)] = 0.01

    name: ClassVar[str] = "embedding"

    def check(self, where: str) -> None:
        if (self.rank is None) == (self.energy is None):
            raise MethodError(f"{where}: embedding takes one of rank and energy")

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        del batches
        self.check(context.where)
        for name, table in self._found(model, context.where).items():
            if self.rank is not None and _size(table, self.rank) >= table.weight.numel():
                most = (table.weight.numel() - 1) // (table.num_embeddings + table.embedding_dim)
                raise MethodError(
                    f"{context.where}.rank: {self.rank} saves nothing of {name}, {table.num_embeddings} × "
                    f"{table.embedding_dim}; at most {most} does"
                )

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module | None:
        return compress(self, model, batches, context)[0] if self.rank is not None else None

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        self.check_model(model, batches, context)
        found = self._found(model, context.where)
        seen = frequencies(model, list(found), batches, context)
        bases = {name: basis(table.weight, seen[name] + self.floor) for name, table in found.items()}
        choice: dict[str, Any] = context.decisions.choose(self.name, lambda: self._choose(found, bases, seen))
        ranks = {name: entry["ranks"][0] for name, entry in choice["layers"].items() if entry["ranks"]}
        tensors = {}
        for name, rank in ranks.items():
            spectrum, vectors = bases[name]
            scale = spectrum[:rank].clamp(min=1e-12).sqrt()
            tensors[f"{name}.0.weight"] = (found[name].weight.detach().double() @ vectors[:, :rank] / scale).float()
            tensors[f"{name}.1.weight"] = (vectors[:, :rank] * scale).float()
        notes = [f"{name}: {entry['why']}" for name, entry in choice["layers"].items()]
        return Plan(Edit(self.name, {"ranks": ranks}), tensors, [*notes, choice["summary"]])

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Put the two factors in place of each table."""
        for name, rank in edit.data["ranks"].items():
            table = cast(nn.Embedding, model.get_submodule(name))
            pair = nn.Sequential(
                nn.Embedding(table.num_embeddings, rank), nn.Linear(rank, table.embedding_dim, bias=False)
            )
            replace(model, {name: pair.to(table.weight.device).train(table.training)})
        return model

    def _found(self, model: nn.Module, where: str) -> dict[str, nn.Embedding]:
        every = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Embedding)}
        if self.tables is None:
            largest = max(every, key=lambda name: every[name].weight.numel(), default=None)
            found = {largest: every[largest]} if largest is not None else {}
        else:
            for pattern in self.tables:
                if not any(fnmatchcase(name, pattern) for name in every):
                    raise MethodError(
                        f"{where}.tables: no embedding {pattern!r}; there are: {', '.join(every) or 'none'}"
                    )
            found = {name: t for name, t in every.items() if any(fnmatchcase(name, each) for each in self.tables)}
        if not found:
            raise MethodError(f"{where}: embedding found no embedding in this model")
        for name, table in found.items():
            if why := _unfit(model, name, table):
                raise MethodError(f"{where}: {why}")
        return found

    def _choose(
        self, found: dict[str, nn.Embedding], bases: dict[str, tuple[Tensor, Tensor]], seen: dict[str, Tensor]
    ) -> dict[str, Any]:
        layers: dict[str, dict[str, Any]] = {}
        before = after = 0
        for name, table in found.items():
            spectrum, _ = bases[name]
            rank = self.rank or rank_of_energy(spectrum, cast(float, self.energy))
            old, new = FLOAT * table.weight.numel(), FLOAT * _size(table, rank)
            if new >= old:
                layers[name] = {"ranks": None, "why": f"stays: rank {rank} would take {new:,} bytes, it has {old:,}"}
                continue
            squares = spectrum.square()
            error = float(squares[rank:].sum() / squares.sum())
            rows = int((seen[name] > 0).sum())
            why = (
                f"rank {rank}: {old:,} to {new:,} bytes of float32, {error:.2%} of the squares lost, weighted by "
                f"frequency ({rows:,} of {table.num_embeddings:,} rows seen)"
            )
            layers[name] = {"ranks": [rank], "why": why, "error": error, "bytes": [old, new]}
            before, after = before + old, after + new
        done = sum(1 for each in layers.values() if each["ranks"])
        summary = f"{done} of {len(layers)} tables factorized: {before:,} to {after:,} bytes of float32"
        return {"layers": layers, "summary": summary}


def basis(table: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return singular values [d], descending, and right singular vectors [d × d] of diag(√weights)·table, float64."""
    rows = table.detach().double()
    values, vectors = torch.linalg.eigh(rows.T @ (weights[:, None] * rows))
    return values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)


@torch.inference_mode()
def frequencies(model: nn.Module, names: list[str], batches: Batches, context: Context) -> dict[str, Tensor]:
    """Return how often calibration rows read each row of the tables ([V], float64), padding left out.

    Raises MethodError for a table that none reads.
    """
    counts: dict[str, Tensor] = {}
    real: list[Tensor | None] = [None]

    def see(name: str, table: nn.Embedding, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        ids = args[0] if args else named["input"]
        read = ids[real[0]] if real[0] is not None and real[0].shape == ids.shape else ids.flatten()
        count = torch.bincount(read.long(), minlength=table.num_embeddings).double()
        counts[name] = counts.get(name, torch.zeros_like(count)) + count

    model.eval()
    with layer_hooks.before(model, names, see, with_kwargs=True):
        for inputs, _ in batches():
            real[0] = context.calibration.real(inputs)
            call(model, inputs)
    if unread := [name for name in names if name not in counts]:
        raise MethodError(f"{context.where}: embedding: no calibration row reads {unread[0]}")
    return counts


def _unfit(model: nn.Module, name: str, table: nn.Embedding) -> str | None:
    """Return why two factors can't stand for a table, or None."""
    if isinstance(table, QuantizedEmbedding):
        return f"{name} is quantized already; factorize it before, and quantize the factors"
    if type(table) is not nn.Embedding:
        kind = type(table).__name__
        return f"{name} is a {kind}, which may do more than look up; list other tables in tables"
    if table.max_norm is not None:
        return f"{name} has max_norm, which its factors can't keep; list other tables in tables"
    every = model.named_parameters(remove_duplicate=False)
    others = [other for other, each in every if each is table.weight and other != f"{name}.weight"]
    if others:
        return f"{name}.weight is {others[0]} too, which would keep the whole table; list other tables in tables"
    return None


def _size(table: nn.Embedding, rank: int) -> int:
    """Return the weights of the two factors."""
    return rank * (table.num_embeddings + table.embedding_dim)
