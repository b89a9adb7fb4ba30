"""A release travels as one file or by a URL, and arrives whole or leaves nothing."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from slimline import archive, manifest
from slimline.deployment import Deployment
from slimline.errors import ArtifactError, ReleaseError


@pytest.fixture
def release(two_releases: tuple[Path, Path]) -> Path:
    return two_releases[0]


@pytest.fixture
def packed(release: Path, tmp_path: Path) -> Path:
    archive.pack(release, str(tmp_path / "packed.tar.gz"))
    return tmp_path / "packed.tar.gz"


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's file system in memory, as a URL."""
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def nothing_arrived(target: Path) -> bool:
    return not target.exists() and not list(target.parent.glob(".*.tmp"))


@pytest.mark.parametrize("suffix", archive.SUFFIXES)
def test_pack_and_unpack_give_the_same_release(release: Path, tmp_path: Path, suffix: str) -> None:
    revision = archive.pack(release, str(tmp_path / f"r{suffix}"))
    assert revision == manifest.digest(release)
    assert archive.unpack(str(tmp_path / f"r{suffix}"), tmp_path / "arrived") == revision
    assert manifest.verify(tmp_path / "arrived") == revision
    assert not list(tmp_path.glob(".*"))


def test_the_same_release_packs_to_the_same_bytes(release: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "copy", copy_function=shutil.copyfile)  # other times, in another place
    archive.pack(tmp_path / "copy", str(tmp_path / "again.tar.gz"))
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()


def test_a_packed_file_names_nobody_and_no_time(packed: Path) -> None:
    with tarfile.open(packed) as tar:
        members = tar.getmembers()
    assert members[0].name == "manifest.json"
    assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {(0, 0, 0, "", 0o644)}


def test_a_damaged_release_is_not_packed(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "r")
    (tmp_path / "r" / "golden.npz").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"golden\.npz: 0 bytes"):
        archive.pack(tmp_path / "r", str(tmp_path / "r.tar"))
    assert not (tmp_path / "r.tar").exists()
    with pytest.raises(ReleaseError, match=r"r\.zip: its name must end in \.tar, "):
        archive.pack(release, str(tmp_path / "r.zip"))
    with pytest.raises(ReleaseError, match=r"nowhere: no such folder to write r\.tar into"):
        archive.pack(release, str(tmp_path / "nowhere" / "r.tar"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.98], ids=lambda share: f"{share:.1%}")
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_truncated_tar_leaves_nothing(release: Path, tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"r{suffix}"
    archive.pack(release, str(path))
    whole = path.read_bytes()
    if suffix == ".tar":
        whole = whole.rstrip(b"\x00")  # the padding at its end holds nothing
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises((ReleaseError, ArtifactError)) as caught:
        archive.unpack(str(path), tmp_path / "arrived")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_arrived(tmp_path / "arrived")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_changed_byte_leaves_nothing(release: Path, tmp_path: Path, at: float) -> None:
    path = tmp_path / "r.tar"
    archive.pack(release, str(path))
    content = bytearray(path.read_bytes())
    start = content.index(b"chain/teacher/model.onnx\0") + 512
    content[start + int(at * (release / "chain/teacher/model.onnx").stat().st_size)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{path}/chain/teacher/model\.onnx: wrong digest, .* get {path} again"):
        archive.unpack(str(path), tmp_path / "arrived")
    assert nothing_arrived(tmp_path / "arrived")


def regular(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 4
    return member


def special(name: str, kind: bytes, leads_to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, leads_to
    return member


@pytest.mark.parametrize(
    ("member", "said"),
    [
        pytest.param(regular("../evil"), "outside the destination", id="parent"),
        pytest.param(regular("/tmp/evil"), "is not as manifest.json lists it|absolute", id="absolute"),  # noqa: S108
        pytest.param(regular("evil"), "'evil' is not as manifest.json lists it", id="unlisted"),
        pytest.param(regular("card.json"), "'card.json' is not as manifest.json lists it", id="another size"),
        pytest.param(special("chain", tarfile.SYMTYPE, "/etc"), "link to an absolute path", id="link outside"),
        pytest.param(special("chain", tarfile.SYMTYPE, "assets"), "'chain' is no regular file", id="link inside"),
        pytest.param(special("pipe", tarfile.FIFOTYPE), "special file", id="fifo"),
        pytest.param(special("chain", tarfile.DIRTYPE), "'chain' is no regular file", id="folder"),
    ],
)
def test_a_hostile_member_is_refused(release: Path, tmp_path: Path, member: tarfile.TarInfo, said: str) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(release / "manifest.json", "manifest.json")
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(ReleaseError, match=said):
        archive.unpack(str(path), tmp_path / "inner" / "arrived")
    assert nothing_arrived(tmp_path / "inner" / "arrived")
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "inner" / "evil").exists()


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    text = b'{"format": 1, "files": {"../evil": {"bytes": 4, "sha256": ""}}}'
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    with pytest.raises(ReleaseError, match=r"manifest\.json: '\.\./evil' points outside the release"):
        archive.unpack(str(path), tmp_path / "arrived")


def test_a_bomb_writes_no_more_than_was_announced(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(release / "manifest.json", "manifest.json")
        member = tarfile.TarInfo("card.json")
        member.size = 1 << 26
        tar.addfile(member, io.BytesIO(bytes(1 << 26)))
    with pytest.raises(ReleaseError, match=r"'card\.json' is not as manifest\.json lists it"):
        archive.unpack(str(path), tmp_path / "arrived")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole tar"),
        (b"<html>404</html>", "not a whole tar"),
        (b"\x1f\x8b\x08" + bytes(40), "not a whole tar"),
    ],
    ids=["empty", "a page", "half a gzip"],
)
def test_what_is_no_tar_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ReleaseError, match=said):
        archive.unpack(str(tmp_path / "x.tar"), tmp_path / "arrived")


def test_a_tar_from_elsewhere_is_told_how_to_be_made(release: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(release, "release")
    with pytest.raises(ReleaseError, match="'release' is no regular file; pack it with 'slimline pack'"):
        archive.unpack(str(tmp_path / "x.tar"), tmp_path / "arrived")


def test_unpack_replaces_a_release_and_nothing_else(
    two_releases: tuple[Path, Path], packed: Path, tmp_path: Path
) -> None:
    shutil.copytree(two_releases[1], tmp_path / "there")
    archive.unpack(str(packed), tmp_path / "there")
    assert manifest.digest(tmp_path / "there") == manifest.digest(two_releases[0])
    (tmp_path / "photos").mkdir()
    with pytest.raises(ReleaseError, match="photos: exists and is no release"):
        archive.unpack(str(packed), tmp_path / "photos")


def test_another_revision_than_expected_is_refused(release: Path, packed: Path, tmp_path: Path) -> None:
    revision = manifest.digest(release)
    with pytest.raises(ReleaseError, match=f"its revision is {revision}, not sha256:0123"):
        archive.unpack(str(packed), tmp_path / "arrived", "sha256:0123")
    assert nothing_arrived(tmp_path / "arrived")
    for expect in (revision, revision[7:19]):
        archive.unpack(str(packed), tmp_path / "arrived", expect)


def test_a_release_goes_to_a_url_and_comes_from_it(release: Path, memory: str, tmp_path: Path) -> None:
    revision = archive.pack(release, f"{memory}/models/r.tar.gz")
    assert archive.unpack(f"{memory}/models/r.tar.gz", tmp_path / "one") == revision
    fsspec.filesystem("memory").put(str(release), "/bucket/plain", recursive=True)
    assert archive.unpack(f"{memory}/plain", tmp_path / "two") == revision
    assert archive.unpack(f"file://{release}", tmp_path / "three") == revision
    deployment = Deployment(tmp_path / "deployed")
    assert deployment.install(f"{memory}/models/r.tar.gz") == revision
    deployment.activate(revision)


def cut(files: fsspec.AbstractFileSystem) -> None:
    files.pipe_file("/bucket/r/golden.npz", files.cat_file("/bucket/r/golden.npz")[:-1])


def lose(files: fsspec.AbstractFileSystem) -> None:
    files.rm_file("/bucket/r/chain/distill/model.onnx")


@pytest.mark.parametrize(("harm", "said"), [(cut, r"golden\.npz: \d+ bytes"), (lose, "not found")])
def test_a_damaged_release_at_a_url_leaves_nothing(
    release: Path, memory: str, tmp_path: Path, harm: Callable[[fsspec.AbstractFileSystem], None], said: str
) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(release), "/bucket/r", recursive=True)
    harm(files)
    with pytest.raises((ReleaseError, ArtifactError), match=f"^{memory}/r.*{said}"):
        archive.unpack(f"{memory}/r", tmp_path / "arrived")
    assert nothing_arrived(tmp_path / "arrived")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://bucket/nowhere.tar", "not found"),
        ("nonsense://bucket/r.tar", "Protocol not known: nonsense"),
        ("file:///nowhere/r.tar", "not found"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(memory: str, tmp_path: Path, url: str, said: str) -> None:
    fsspec.filesystem("memory").makedirs("/bucket", exist_ok=True)
    with pytest.raises(ReleaseError, match=f"^{url}: .*{said}"):
        archive.unpack(url, tmp_path / "arrived")
    assert nothing_arrived(tmp_path / "arrived")
