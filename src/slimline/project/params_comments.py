"""Short comments in the params.yaml that ``slimline init`` writes: at the keys that are changed first, and on sections
that the recipe doesn't run.
"""

from __future__ import annotations

import yaml

from slimline import pipeline

FIRST = {  # the line that a key starts with: what to say above it
    "    labels:": "in the order of the model's outputs",
    "limit:": "at most so many rows of every split, to try the chain; null takes all",
    "target:": "where the model will run: what speed is measured on",
    "  stages:": "what is exported and measured: it runs, and what it is made from",
    "budget:": "what the gate holds the last stage to: a drop below the teacher; min_speedup, max_bytes too, if set",
}


def commented(text: str, recipe: str) -> str:
    """Return params.yaml's ``text``, as YAML in blocks, with comments; what it says stays."""
    document = yaml.safe_load(text)
    runs = {stage for each in document["export"]["stages"] for stage in pipeline.ancestors(document, each)}
    said = {
        f"{stage}:": f"recipe {recipe} doesn't run it; dvc.yaml reads its keys"
        for stage in pipeline.stages(document)
        if stage not in runs
    }
    lines = []
    for line in text.splitlines():
        for start, comment in (FIRST | said).items():
            if line.startswith(start):
                lines.append(f"{' ' * (len(start) - len(start.lstrip()))}# {comment}")
        lines.append(line)
    return "\n".join([*lines, ""])
