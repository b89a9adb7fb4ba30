"""Choices made by measurement, kept so that the same inputs give the same artifact although clocks differ.

``decisions/STAGE.json`` maps the key of (input artifact, settings) to what was chosen. It is committed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimline import manifest
from slimline.errors import ArtifactError

FORMAT = 1
FOLDER = Path("decisions")


class Decisions:
    """The choices of one stage. ``inputs`` is whatever they hang on, as JSON data; other inputs choose anew."""

    def __init__(self, path: Path | None, inputs: Any, *, remeasure: bool = False) -> None:
        self.path = path
        self.key = hashlib.sha256(manifest.canonical(inputs)).hexdigest()
        self.choices: dict[str, Any] = {}
        self.replayed: list[str] = []
        self._entries: Counter[str] = Counter()
        if path is not None and path.is_file() and not remeasure:
            document = manifest.read_json(path)
            if not isinstance(document, dict) or not isinstance(document.get("choices"), dict):
                raise ArtifactError(f"{path}: choices: missing; delete the file to measure anew")
            manifest.check_format(document, path, FORMAT)
            if document.get("key") == self.key:
                self.choices = document["choices"]

    def entry(self, method: str) -> Entry:
        """Return the choices of the stage's next entry of ``method``; a second one's are kept apart."""
        self._entries[method] += 1
        return Entry(self, self._entries[method])

    def choose(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the recorded choice ``name``, or measure it now and record it."""
        if name in self.choices:
            self.replayed.append(name)
        else:
            self.choices[name] = measure()
            self.write()
        return self.choices[name]

    def write(self) -> None:
        """Write the file, choices or none, so that the stage always leaves one."""
        if self.path is not None:
            manifest.write_json(self.path, {"format": FORMAT, "key": self.key, "choices": self.choices})


class Entry(Decisions):
    """The part of a stage's decisions that one entry of its methods makes.

    Names of the first entry of a method are its own; those of the second end in " #2", and so on.
    """

    def __init__(self, whole: Decisions, number: int) -> None:
        self._whole, self._number = whole, number
        self.path, self.key, self.choices, self.replayed = whole.path, whole.key, whole.choices, whole.replayed

    def choose(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the recorded choice ``name`` of this entry, or measure it now and record it."""
        return self._whole.choose(numbered(name, self._number), measure)


def numbered(name: str, number: int) -> str:
    """Return the name of a choice in the stage's ``number``-th entry of a method, from 1."""
    return f"{name} #{number}" if number > 1 else name
