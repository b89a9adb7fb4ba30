"""Zip and tar files, however they were packed."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slimline.errors import DataError
from slimline.own_data import image_stores
from slimline.project import own_data
from tests.pictures import LABELS, write_folders, write_manifest, write_tar, write_zip
from tests.tasks.labelled_images.conftest import all_rows, make


def test_names_in_a_zip_are_utf_8_even_where_it_does_not_say_so(tmp_path: Path) -> None:
    (write_folders(tmp_path / "pictures", 2) / "red").rename(tmp_path / "pictures/größer")
    whole = write_zip(tmp_path / "pictures", tmp_path / "said.zip").read_bytes()
    flag = re.compile(rb"(PK\x03\x04..|PK\x01\x02....)\x00\x08", re.DOTALL)
    (tmp_path / "p.zip").write_bytes(flag.sub(lambda found: found[1] + bytes(2), whole))
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert not any("größer" in name for name in archive.namelist())
    store = image_stores.store(tmp_path / "p.zip")
    assert {name.split("/")[-2] for name in store.names()} == {"größer", "green", "blue"}
    assert all(store.read(name).startswith(b"\x89PNG") for name in store.names())
    assert image_stores.store(tmp_path / "said.zip").names() == store.names()


def test_a_zip_with_a_password_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    whole = write_zip(folder, tmp_path / "p.zip").read_bytes()
    flag = re.compile(rb"(PK\x03\x04..|PK\x01\x02....).", re.DOTALL)
    (tmp_path / "p.zip").write_bytes(flag.sub(lambda found: found[1] + b"\x01", whole))
    with pytest.raises(DataError, match=r"p\.zip: .*\.png: can't be read: .* encrypted, password required"):
        all_rows(make(tmp_path / "p.zip"))


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_holds_the_same_rows(folder: Path, tmp_path: Path, write: Callable[[Path, Path], Path]) -> None:
    archive = write(folder, tmp_path / ("all.zip" if write is write_zip else "all.tar.gz"))
    assert all_rows(make(archive)) == all_rows(make(folder))


@pytest.mark.parametrize("suffix", [".tar", ".TAR", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".ZIP"])
@pytest.mark.parametrize("listed", [False, True], ids=["folders", "table"])
def test_any_archive_however_its_names_start(folder: Path, tmp_path: Path, suffix: str, listed: bool) -> None:
    packed = tmp_path / f"all{suffix}"
    if suffix == ".ZIP":
        write_zip(folder, packed)
    else:
        subprocess.run(["tar", "-caf", packed.with_name(packed.name.lower()), "-C", folder, "."], check=True)
        packed.with_name(packed.name.lower()).rename(packed)
    if not listed:
        assert all_rows(make(packed)) == all_rows(make(folder))
        return
    start = "pictures/" if suffix == ".ZIP" else ""
    rows = [[f"{start}{label}/{index:03}.png", label] for label in LABELS for index in range(40)]
    table = write_manifest(tmp_path, rows, ["path", "label"])
    assert all_rows(make(table, archive=str(packed))) == all_rows(make(folder))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_half_an_archive_is_told_in_one_line(folder: Path, tmp_path: Path, kind: str, share: float) -> None:
    whole, half = tmp_path / "whole", tmp_path / f"half.{kind}"
    with tarfile.open(whole, "w:gz" if kind == "tar.gz" else "w") as archive:
        archive.add(folder, "pictures")
    half.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(DataError, match=rf"half\.{kind}: damaged, or not whole: .*; pack it again$") as caught:
        own_data.classes(half)
    assert "\n" not in str(caught.value)
