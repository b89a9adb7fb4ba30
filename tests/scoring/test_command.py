"""``slimline predict``: what it says, its bar, and memory that doesn't grow with the file."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slimline.cli import main


def test_the_command(
    release: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    monkeypatch.setattr(sys, "argv", ["slimline", "predict", str(release), str(folder), str(target)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{target}: 150 rows\n", "")


def test_the_bar_grows_to_the_end_on_a_terminal(release: Path, folder: Path, tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "slimline", "predict", str(release), str(folder), str(tmp_path / "out.csv")]
    done = subprocess.run(command, stderr=side, stdout=subprocess.PIPE, text=True, timeout=120)
    os.close(side)
    shown = b""
    with suppress(OSError):  # a terminal without another side
        while part := os.read(terminal, 65_536):
            shown += part
    os.close(terminal)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out.csv'}: 150 rows\n")
    shares = [int(each) for each in re.findall(rb"(\d+)%", shown)]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 2


MEASURE = """
import resource, sys
from pathlib import Path
from slimline import scoring
assert scoring.score(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])) == int(sys.argv[4])
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_file(release: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (4_000, 60_000):
        source = tmp_path / f"{count}.parquet"
        row = pa.table(
            {"image": pa.array(np.random.default_rng(0).random((2_000, 64)).tolist(), pa.list_(pa.float64()))}
        )
        with pq.ParquetWriter(source, row.schema, use_dictionary=False) as writer:
            for _ in range(count // 2_000):
                writer.write_table(row)
        arguments = [sys.executable, "-c", MEASURE, release, source, tmp_path / "out.parquet", str(count)]
        peaks.append(int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    assert (tmp_path / "60000.parquet").stat().st_size > 25 << 20
    assert peaks[1] - peaks[0] < 20, peaks
