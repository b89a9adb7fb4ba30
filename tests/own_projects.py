"""Projects laid out on encoders that transformers saved, and on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slimline import params
from slimline.project import own_project
from slimline.project.own_project import Own
from tests.encoders import configuration, write_tokenizer

SIZES = {"num_hidden_layers": 6, "max_position_embeddings": 512}


def model(folder: Path) -> str:
    """Save an encoder of six layers without a head, as transformers does, with its tokenizer."""
    from transformers import BertModel

    return save(folder, BertModel(configuration(**SIZES)))


def trained(folder: Path, names: list[str] | None = None, count: int = 2) -> str:
    """Save one with a head; without names transformers calls its outputs LABEL_0, LABEL_1, …"""
    from transformers import BertForSequenceClassification

    more: dict[str, Any] = {"num_labels": count} if names is None else {"id2label": dict(enumerate(names))}
    return save(folder, BertForSequenceClassification(configuration(**SIZES, **more)))


def save(folder: Path, network: Any) -> str:
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def laid_out(root: Path, given: str, data: Path, recipe: str = "int8", **columns: Any) -> dict[str, Any]:
    text = own_project.params_text(Own(given, data, **columns), root, recipe, 500)
    document: dict[str, Any] = yaml.safe_load(text)
    params.parse(document)
    return document
