"""What to do about an alert: one page each, in docs/runbooks of a checkout and inside of an installed package."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Return the folder of the pages ALERT.md."""
    package = Path(__file__).parent
    packaged = package / "monitoring" / "runbooks"
    return packaged if packaged.is_dir() else package.parents[1] / "docs" / "runbooks"


def text(alert: str) -> str:
    """Return what an alert's page says, less its title."""
    return (folder() / f"{alert}.md").read_text(encoding="utf-8").partition("\n")[2].strip()
