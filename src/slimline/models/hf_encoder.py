"""Hugging Face encoders (BERT, RoBERTa, DistilBERT, MiniLM, ELECTRA, …) as classifiers and regressors of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from slimline import hub
from slimline.errors import ArtifactError, ParamsError
from slimline.tokens import IDS, TYPES

Pooling = Literal["mean", "cls", "head"]
CONFIG = "config.json"


class HfEncoder(nn.Module):
    """An encoder and what turns its hidden states into ``classes`` outputs.

    ``source`` is a model's folder or its name on the hub: its configuration is read when the model is built for the
    first time, its weights when ``teacher.weights`` names them. An artifact holds the configuration as
    ``assets/config.json``, so loading one needs neither. ``pooling``: the mean over tokens (Reimers & Gurevych 2019,
    arXiv:1908.10084) or the first token's state, then a linear layer; ``head`` is the model's own head for
    classification. ``config`` overrides keys of the configuration ({num_hidden_layers: 3} for a smaller student).

    Takes ``input_ids`` N × length (int64), a row's end filled up with the configuration's pad_token_id, and
    ``token_type_ids`` of the same shape where texts come in pairs; gives N × ``classes``.
    """

    def __init__(
        self,
        source: str,
        pooling: Pooling = "mean",
        classes: int = 2,
        config: dict[str, Any] | None = None,
        dropout: float = 0.1,
        assets: Path | None = None,
    ) -> None:
        super().__init__()
        if pooling not in {"mean", "cls", "head"}:
            raise ParamsError(f"pooling: {pooling!r} is not one of mean, cls, head")
        settings = _configuration(source, assets, config or {}, classes)
        if not isinstance(settings.pad_token_id, int):
            raise ParamsError(f"source: {source}: its configuration has no pad_token_id, so padding can't be told")
        self.source, self.pooling, self.pad_id = source, pooling, settings.pad_token_id
        self.assets = {CONFIG: settings.to_json_string(use_diff=False)}
        transformers = _transformers()
        # eager: its MatMul, Softmax, MatMul are what graph optimizers know
        settings._attn_implementation = "eager"  # noqa: SLF001  (the public argument of from_config sets no more)
        if pooling == "head":
            self.body: nn.Module = _linear(transformers.AutoModelForSequenceClassification.from_config(settings))
            return
        self.body = _linear(transformers.AutoModel.from_config(settings))
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None  # type: ignore[assignment]  # nothing reads it
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(settings.hidden_size, classes)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        mask = (input_ids != self.pad_id).long()
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.body(input_ids=input_ids, attention_mask=mask, **types)
        if self.pooling == "head":
            return cast(Tensor, out.logits)
        hidden = out.last_hidden_state  # N × length × width
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return cast(Tensor, self.classifier(self.dropout(pooled)))

    @property
    def positions(self) -> tuple[int | None, int]:
        """How many tokens a text may have, None where nothing bounds them, and how many positions there are.

        RoBERTa's kin give out positions from behind that of padding, so the first ones are no text's.
        """
        held = getattr(self.body.config, "max_position_embeddings", None)
        if not isinstance(held, int) or held < 1:
            return None, 0
        tables = [each for each in self.modules() if isinstance(each, nn.Embedding) and each.num_embeddings == held]
        before = [each.padding_idx + 1 for each in tables if each.padding_idx is not None]
        return held - max(before, default=0), held

    def refusal(self, inputs: Mapping[str, Tensor]) -> str:
        """Return why this encoder fails on inputs, by a key of params.yaml; "" where it can't tell."""
        length, (most, held) = inputs[IDS].shape[1], self.positions
        if most is not None and length > most:
            most_said = f"takes texts of at most {most} tokens (of its {held} positions)"
            return f"task.args.max_length: {length}: {self.source} {most_said}"
        for name, what, size in ((IDS, "token", "vocab_size"), (TYPES, "segment", "type_vocab_size")):
            largest, known = int(inputs[name].max()) if name in inputs else 0, getattr(self.body.config, size, None)
            if isinstance(known, int) and 0 < known <= largest:
                return (
                    f"task.args.tokenizer: it gives {what} {largest}, and {self.source} knows none above {known - 1} "
                    f"({size}): take the model's own tokenizer, or another model"
                )
        return ""

    @property
    def heads(self) -> tuple[str, ...]:
        """What the names of tensors begin with that stand after the encoder, and may be learnt anew."""
        if self.pooling != "head":
            return ("classifier.",)
        base = str(self.body.base_model_prefix)
        after = (name for name, _ in self.body.named_children() if name != base)
        return (*(f"body.{name}." for name in after), f"body.{base}.pooler.")

    @torch.no_grad()
    def load_pretrained(self, source: str) -> list[str]:
        """Take the weights of a model's folder or its name on the hub; return the names of tensors it has none for.

        Those are of a head that is to be trained. Raises ArtifactError where the encoder itself isn't whole.
        """
        transformers = _transformers()
        kind = transformers.AutoModelForSequenceClassification if self.pooling == "head" else transformers.AutoModel
        with _quiet():
            try:
                found, report = kind.from_pretrained(
                    source, config=self.body.config, output_loading_info=True, ignore_mismatched_sizes=True
                )
            except Exception as error:  # transformers raises many kinds
                why = hub.pointer(Path(source)) or f"{source}: {' '.join(str(error).split())[:300]}"
                raise ArtifactError(why) from error
        lost = {str(name) for name in report["missing_keys"]} | {str(key[0]) for key in report["mismatched_keys"]}
        own, given = self.body.state_dict(), _linear(found).state_dict()
        head = [name for name in own if name in lost and f"body.{name}".startswith(self.heads)]
        if broken := sorted((lost & own.keys()) - set(head)):
            raise ArtifactError(f"{source}: tensor {broken[0]} is missing or of another shape ({len(broken)} in all)")
        self.body.load_state_dict({name: given[name] for name in own})
        fresh = [] if self.pooling == "head" else ["classifier.weight", "classifier.bias"]
        return [*(f"body.{name}" for name in head), *fresh]


def _configuration(source: str, assets: Path | None, overrides: dict[str, Any], classes: int) -> Any:
    """Return the configuration of an artifact's assets, else of ``source``."""
    folder = str(assets) if assets is not None and (assets / CONFIG).is_file() else source
    if not Path(folder).exists():
        hub.fetch(folder, CONFIG, "source: ")
    try:
        settings = _transformers().AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"source: {source}: no folder of a model, and the hub doesn't give it: {reason}") from error
    for key, value in overrides.items():
        if not hasattr(settings, key):
            raise ParamsError(f"config.{key}: unknown key of {type(settings).__name__}")
        setattr(settings, key, value)
    if getattr(settings, "num_labels", classes) != classes:
        settings.num_labels = classes
    return settings


def _linear(network: nn.Module) -> nn.Module:
    """Turn transformers' Conv1D (GPT-2's: a Linear whose weights lie the other way round) into Linear, in place."""
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv1D):
                ins, outs = layer.weight.shape
                made = nn.Linear(ins, outs, device=layer.weight.device, dtype=layer.weight.dtype)
                made.weight.data, made.bias.data = layer.weight.data.T.contiguous(), layer.bias.data
                setattr(parent, name, made)
    return network


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ParamsError("hf-encoder: transformers is not installed: pip install 'slimline[hf]'") from error
    return transformers


class _quiet:  # noqa: N801  (used like a function)
    """Keep transformers' progress bars and its advice to train off the terminal."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.level)
        logging.enable_progress_bar()
