"""Rows that were appended batch by batch come back as they were, and leave nothing behind."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np

from slimline.own_data import row_files


def test_appended_rows_come_back_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = {"ids": (np.int64, (5,)), "pixels": (np.uint8, (2, 3))}
    whole = {"ids": rng.integers(0, 9, (7, 5)), "pixels": rng.integers(0, 255, (7, 2, 3)).astype(np.uint8)}
    with row_files.appending(tmp_path, stored) as append:
        for rows in (slice(0, 4), slice(4, 7)):
            append({name: array[rows] for name, array in whole.items()})
    found = row_files.appended(tmp_path, stored)
    for name, array in whole.items():
        assert isinstance(found[name], np.memmap)
        np.testing.assert_array_equal(found[name], array)
    row_files.drop_appended(tmp_path, stored)
    assert not list(tmp_path.iterdir())


def test_saved_rows_are_numpys_own_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((7, 2, 3), (5,), (0, 4)):
        whole = rng.random(shape, dtype=np.float32)
        np.save(tmp_path / "theirs.npy", whole)
        row_files.save(tmp_path / "ours.npy", [whole[:3], whole[3:]], len(whole))
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
        chosen = rng.permutation(len(whole))
        row_files.select(whole, chosen, tmp_path / "chosen.npy")
        np.testing.assert_array_equal(row_files.load(tmp_path / "chosen.npy"), whole[chosen])


def test_rows_on_a_full_disk_are_the_systems_error(tmp_path: Path) -> None:
    """A limit on a file's size stands for the disk: writes fall short the same way."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from slimline.own_data import row_files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "rows = np.zeros((10_000, 4))\n"
        "try:\n    row_files.select(rows, np.arange(10_000), Path(sys.argv[1]))\n"
        "except OSError as error:\n    print(error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == errno.EFBIG
