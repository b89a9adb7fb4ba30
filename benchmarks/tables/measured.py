"""What was measured, read from metrics/, and which release it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from slimline import provenance


def read(root: Path, name: str) -> Any:
    """Return what metrics/NAME.json holds, {} where it wasn't measured yet."""
    path = root / "metrics" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def of_another_release(root: Path, measured: list[dict[str, Any]]) -> list[str]:
    """Return the caption that a table needs whose numbers are of other releases than dvc.lock's."""
    stages = yaml.safe_load((root / provenance.LOCK).read_text(encoding="utf-8"))["stages"]
    locked = {out["md5"] for out in stages["release"]["outs"]}
    others = [each.get("release", {}) for each in measured if each.get("release", {}).get("dvc") not in locked]
    unknown = "one that wasn't recorded, with floors measured on the rows that were sent"  # until releases were named
    names = sorted({str(each.get("revision", unknown)) for each in others})
    return ["", f"Measured on another release than dvc.lock's: {', '.join(names)}."] if names else []
