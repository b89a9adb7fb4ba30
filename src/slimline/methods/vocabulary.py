"""Vocabulary trimming: a table of embeddings keeps the rows of the tokens that its tokenizer can give.

    E[V, d]  →  E'[K, d],  p[V]:        E[t] = E'[p[t]] for each token t that stays

No answer changes: ``task.args.vocabulary: train`` has left out the pieces that no training text has, so their rows are
never read. Numbers of tokens stay, p is one more table of small integers; the row of the unknown token answers for a
number that no text can have. Abdaoui et al. 2020, arXiv:2010.05609.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan, compress
from slimline.pruning import trimming
from slimline.quantization.quantizers import replace
from slimline.task import call


class TrimmedEmbedding(nn.Module):
    """An embedding of ``len(positions)`` tokens that stand in fewer ``rows``: ids N × … to N × … × width."""

    positions: Tensor

    def __init__(self, rows: nn.Embedding, tokens: int) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("positions", torch.zeros(tokens, dtype=torch.int32))

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.rows(self.positions[ids])
        return out


@dataclass(frozen=True)
class Vocabulary(Method):
    """Trim embeddings to the rows that can be read, which the task's tokenizer tells."""

    name: ClassVar[str] = "vocabulary"

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        self.plan(model, batches, context)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        return compress(self, model, batches, context)[0]

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        document, input_name = _tokenizer(context)
        inputs, _ = next(iter(batches()))
        tables = _tables(model, inputs, input_name)
        if not tables:
            raise MethodError(f"{context.where}: vocabulary found no embedding that reads {input_name!r}")
        kept = trimming.numbers(document)
        found = trimming.unknown(document)
        unknown = kept[0] if found is None else found
        sizes = {name: cast(nn.Embedding, model.get_submodule(name)).num_embeddings for name in tables}
        whole = {name: size for name, size in sizes.items() if len(kept) >= size}
        if whole and not getattr(context.task, "trims", False):
            name, size = next(iter(whole.items()))
            raise MethodError(
                f"{context.where}: the tokenizer can give each of the {size} tokens of {name}; "
                "set task.args.vocabulary: train"
            )
        notes = [f"{name}: all {size} tokens stay, training texts need each" for name, size in whole.items()]
        sizes = {name: size for name, size in sizes.items() if name not in whole}
        edit = Edit(self.name, {"rows": dict.fromkeys(sizes, len(kept))})
        tensors: dict[str, Tensor] = {}
        for name, size in sizes.items():
            rows = torch.tensor(kept)
            positions = torch.full((size,), kept.index(unknown), dtype=torch.int32)
            positions[rows] = torch.arange(len(kept), dtype=torch.int32)
            tensors[f"{name}.positions"] = positions
            for key, tensor in model.get_submodule(name).state_dict().items():
                tensors[f"{name}.rows.{key}"] = tensor[rows] if tensor.shape[:1] == (size,) else tensor
        notes += [f"{name}: {len(kept)} of {size} tokens kept" for name, size in sizes.items()]
        return Plan(edit, tensors, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Put smaller tables in place; their rows come from the tensors."""
        for name, count in edit.data["rows"].items():
            table = model.get_submodule(name)
            assert isinstance(table, nn.Embedding)  # noqa: S101  (plan found it)
            tokens = table.num_embeddings
            _cut(table, tokens, count)
            replace(model, {name: TrimmedEmbedding(table, tokens).train(table.training)})
        return model


def _cut(table: nn.Embedding, tokens: int, count: int) -> None:
    """Leave ``count`` rows in a table and in what its quantizer keeps a row."""
    for module in table.modules():
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.shape[:1] != (tokens,):
                continue
            cut = tensor.detach()[:count].clone()
            trained = isinstance(tensor, nn.Parameter)
            setattr(module, key, nn.Parameter(cut, requires_grad=tensor.requires_grad) if trained else cut)
    table.num_embeddings, table.padding_idx = count, None  # a row of padding trains like any: attention masks it


def _tokenizer(context: Context) -> tuple[dict[str, Any], str]:
    """Return tokenizer.json's content and the name of the input that it makes."""
    preprocess = context.task.preprocess()
    step = next((each for each in preprocess["steps"] if each["op"] == "tokenize"), None)
    if step is None:
        raise MethodError(f"{context.where}: vocabulary works on texts, and this task has no tokenizer")
    document: dict[str, Any] = json.loads(Path(step["file"]).read_text(encoding="utf-8"))
    return document, preprocess["input"]


@torch.inference_mode()
def _tables(model: nn.Module, inputs: dict[str, Tensor], name: str) -> list[str]:
    """Return the embeddings that look up the input ``name`` itself."""
    few = {each: tensor[:2] for each, tensor in inputs.items()}
    found: list[str] = []

    def hook(where: str) -> Any:
        def see(_module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].data_ptr() == few[name].data_ptr():
                found.append(where)

        return see

    hooks = [
        module.register_forward_pre_hook(hook(where))
        for where, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        call(model.eval(), few)
    finally:
        for each in hooks:
            each.remove()
    return list(dict.fromkeys(found))
