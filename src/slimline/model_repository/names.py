"""How the models of one repository are called."""

from __future__ import annotations

RAW = "raw"  # the ensemble's input: encoded images or UTF-8 text, one a row


def preprocessing(model: str) -> str:
    """Return the name of the model that turns raw values into the inputs of ``model``."""
    return f"{model}-preprocess"


def ensemble(model: str, version: int, newest: int) -> str:
    """Return the name under which clients send raw values to a version of ``model``.

    An ensemble has one configuration for all its versions, so each version of the model has an ensemble of its own.
    """
    return f"{model}-raw" if version == newest else f"{model}-raw-v{version}"
