"""The live demo where no process runs: what it starts, plants and asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def test_the_monitor_reads_the_endpoints_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servers import Loop

    started: dict[str, list[str]] = {}
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(Loop, "_start", lambda _, name, command, *rest: started.update({name: command}))
    loop = Loop(tmp_path, tmp_path / "release", sample=0.5)
    loop._monitor()
    loop.pager.close()
    command = started["monitor"]
    assert command[command.index("--endpoint") + 1] == loop.urls["endpoint"]
