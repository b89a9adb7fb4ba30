"""Versions in real git repositories, with releases that real DVC recorded."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from slimline import manifest, promotion, provenance
from slimline.cli import app, main
from slimline.errors import ArtifactError, ReleaseError

BUDGET = {"min_speedup": 1.5}
TIGHT = {"min_speedup": 3.0}


@dataclass(frozen=True)
class Repository:
    """A project with a release that DVC recorded and git committed."""

    root: Path

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def record(self, release: Path) -> None:
        """Put a release where the chain would have left it, let DVC write dvc.lock, and commit."""
        shutil.rmtree(self.root / "release", ignore_errors=True)
        shutil.copytree(release, self.root / "release")
        params = manifest.read_json(release / "card.json")["params"]
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))
        tool("dvc", "commit", "-q", "-f", "release", cwd=self.root)
        self.commit(f"release {release.name}")


def tool(name: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run DVC or GTO as this interpreter has it."""
    start = {"dvc": "from dvc.cli import main; raise SystemExit(main())", "gto": "from gto.cli import app; app()"}
    command = [sys.executable, "-c", start[name], *arguments]
    quiet = os.environ | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=cwd, env=quiet, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(
    make_release: Callable[..., str], two_releases: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    make_release(folder / "good", budget=BUDGET)
    make_release(folder / "better", budget=BUDGET, scale=3.0)
    make_release(folder / "slow", budget=TIGHT)
    return {name: folder / name for name in ("good", "better", "slow")}


@pytest.fixture(scope="module")
def _prepared(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("repository")
    repository = Repository(root)
    repository.git("init", "-q")
    repository.git("config", "user.name", "Test")
    repository.git("config", "user.email", "test@example.org")
    repository.commit("start")
    tool("dvc", "init", "-q", cwd=root)
    (root / "dvc.yaml").write_text("stages:\n  release: {cmd: make, outs: [release]}\n")
    (root / ".gitignore").write_text("/release\n")
    repository.record(made["good"])
    return repository


@pytest.fixture
def repository(_prepared: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    shutil.copytree(_prepared.root, tmp_path / "repository", symlinks=True)
    monkeypatch.chdir(tmp_path / "repository")
    return Repository(tmp_path / "repository")


RELEASE = Path("release")


def test_dvcs_hash_is_dvcs(repository: Repository) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    assert provenance.dvc_hash(RELEASE) == lock["stages"]["release"]["outs"][0]["md5"]


def test_promote_registers_head_and_assigns_the_stage(repository: Repository) -> None:
    checks, version = promotion.promote(RELEASE, "prod", reason="first\none")
    assert [check.ok for check in checks] == [True]
    assert version is not None
    assert (version.version, version.commit) == ("v0.0.1", repository.git("rev-parse", "HEAD").strip())
    assert version.revision == manifest.digest(RELEASE)
    tags = repository.git("for-each-ref", "--format=%(refname:short) %(objecttype)", "refs/tags").splitlines()
    assert tags == ["digits#prod#1 tag", "digits@v0.0.1 tag"]
    message = repository.git("tag", "-l", "--format=%(contents)", "digits#prod#1")
    assert message.strip().splitlines() == [
        "promote digits v0.0.1 to prod", "", f"revision: {manifest.digest(RELEASE)}", "verdict: passed",
        "reason: first one",
    ]  # fmt: skip


def test_gto_itself_sees_the_same(repository: Repository) -> None:
    promotion.promote(RELEASE, "prod")
    assert tool("gto", "show", "digits#prod", "--version").strip() == "v0.0.1"


def test_promoting_again_adds_no_tag_and_another_stage_one(repository: Repository) -> None:
    for stage in ("staging", "staging", "prod"):
        promotion.promote(RELEASE, stage)
    assert repository.git("tag").split() == ["digits#prod#2", "digits#staging#1", "digits@v0.0.1"]


def test_over_budget_is_a_verdict_and_force_is_recorded(
    repository: Repository, made: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.record(made["slow"])
    monkeypatch.setattr(sys, "argv", ["slimline", "promote", "--stage", "prod"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert "FAIL speed-up at batch 1: 2 [1.9, 2.1], budget ≥ 3" in shown
    assert "not promoted: it is over budget; --force" in shown
    assert repository.git("tag") == ""
    with pytest.raises(ReleaseError, match="--force: give --reason"):
        promotion.promote(RELEASE, "prod", force=True, reason=" ")
    _, version = promotion.promote(RELEASE, "prod", force=True, reason="the customer waits")
    assert version is not None
    assert version.verdict == "over budget, forced: speed-up at batch 1"
    assert "reason: the customer waits" in repository.git("tag", "-l", "--format=%(contents)", "digits@v0.0.1")
    assert "(over budget, forced: speed-up at batch 1)" in promotion.lines(promotion.read("digits"))[1]


def test_a_trial_is_called_one_and_its_tag_says_so(
    repository: Repository, made: dict[str, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    def cut(_: Path, card: dict[str, Any]) -> None:
        card["benchmark"]["left_out"] = {"test": [200, 1000]}

    repository.record(resealed(made["good"], tmp_path / "trial", cut))
    said = "a trial, made with limit: 200 of 1,000 test rows"
    done = CliRunner().invoke(app, ["promote", "--stage", "prod"])
    assert f"release: {said}\n" in done.output
    assert f"\ntrial: {said}" in repository.git("tag", "-l", "--format=%(contents)", "digits#prod#1")


def change_params(repository: Repository) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seed: 0", "seed: 1"))


def add_file(repository: Repository) -> None:
    Path("stages.py").write_text("")


@pytest.mark.parametrize(
    ("change", "name"), [(change_params, "params.yaml"), (add_file, "stages.py")], ids=["changed", "untracked"]
)
def test_a_dirty_tree_is_refused(repository: Repository, change: Callable[[Repository], None], name: str) -> None:
    change(repository)
    with pytest.raises(ReleaseError, match=rf"^{name}: not committed, and a version is a commit"):
        promotion.promote(RELEASE, "prod")
    assert repository.git("tag") == ""


@pytest.mark.parametrize(("count", "named"), [(2, "0, 1"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")])
def test_of_files_not_committed_three_are_named(repository: Repository, count: int, named: str) -> None:
    for index in range(count):
        Path(str(index)).touch()
    with pytest.raises(ReleaseError, match=rf"^{named}: not committed, .*; commit, stash or ignore them first"):
        promotion.promote(RELEASE, "prod")


def test_the_first_cause_is_said_first(repository: Repository, made: dict[str, Path], tmp_path: Path) -> None:
    """Repository, release, what is committed, and only then the verdict."""
    repository.record(made["slow"])
    add_file(repository)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ReleaseError, match=r"^no-release: no release, card\.json is missing; 'dvc repro release' makes one"
    ):
        promotion.promote(Path("no-release"), "prod")
    with contextlib.chdir(tmp_path / "empty"), pytest.raises(ReleaseError, match="not a git repository"):
        promotion.promote(Path("no-release"), "prod")
    with pytest.raises(ReleaseError, match="not committed"):
        promotion.promote(RELEASE, "prod")
    Path("stages.py").unlink()
    assert promotion.promote(RELEASE, "prod")[1] is None


def test_a_release_made_with_other_params_than_heads_is_refused(repository: Repository) -> None:
    change_params(repository)
    repository.commit("another seed, no repro")
    with pytest.raises(ReleaseError, match=r"^params\.yaml: seed: at HEAD it is not what release was made with"):
        promotion.promote(RELEASE, "prod")


def test_another_release_than_dvc_lock_at_head_records_is_refused(
    repository: Repository, made: dict[str, Path]
) -> None:
    with pytest.raises(
        ReleaseError, match=r"better: \w{32}\.dir, but dvc\.lock at HEAD records release as \w{32}\.dir"
    ):
        promotion.promote(made["better"], "prod")
    shutil.copytree(RELEASE, repository.root.parent / "elsewhere")
    _, version = promotion.promote(repository.root.parent / "elsewhere", "prod")
    assert version is not None, "the same bytes in another place are the same release"


def test_a_damaged_release_is_refused(repository: Repository) -> None:
    path = RELEASE / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"golden\.npz: \d+ bytes, manifest\.json says"):
        promotion.promote(RELEASE, "prod")


def test_no_dvc_lock_at_head_is_named(repository: Repository) -> None:
    repository.git("rm", "-q", "dvc.lock")
    repository.commit("no lock")
    with pytest.raises(ReleaseError, match=r"HEAD:\./dvc\.lock.*; run 'dvc repro release' and commit"):
        promotion.promote(RELEASE, "prod")


def test_outside_a_repository_is_one_line(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReleaseError, match="git rev-parse HEAD: fatal: not a git repository"):
        promotion.promote(made["good"], "prod")
    with pytest.raises(ReleaseError, match=r"GTO: \. is not a git repository"):
        promotion.only_name()
    assert not promotion.is_repository()


@pytest.fixture
def three(repository: Repository, made: dict[str, Path]) -> Repository:
    """Three versions were promoted to prod: good, better, and good again."""
    for name in ("good", "better", "good"):
        repository.record(made[name])
        promotion.promote(RELEASE, "prod")
    return repository


def test_rollback_goes_back_step_by_step(three: Repository) -> None:
    assert promotion.read("digits").line("prod") == ["v0.0.1", "v0.0.2", "v0.0.3"]
    assert promotion.rollback("prod", "digits", reason="slower").version == "v0.0.2"
    assert promotion.rollback("prod", "digits").version == "v0.0.1"
    with pytest.raises(ReleaseError, match=r"no version was in prod before v0\.0\.1; name one with --to"):
        promotion.rollback("prod", "digits")
    assert promotion.rollback("prod", "digits", to="v0.0.3").version == "v0.0.3"
    found = promotion.read("digits")
    current = found.current("prod")
    assert current is not None
    assert (current.version, current.tag) == ("v0.0.3", "digits#prod#6")
    assert [each.reason for each in found.assignments][3] == "slower"
    assert promotion.rollback("prod", "digits").version == "v0.0.1", "v0.0.3 followed on v0.0.1 this time"


def test_what_cannot_be_rolled_back_is_named(three: Repository) -> None:
    with pytest.raises(ReleaseError, match=r"digits has no version v9\.0\.0; registered: v0\.0\.1, v0\.0\.2, v0\.0\.3"):
        promotion.rollback("prod", "digits", to="v9.0.0")
    with pytest.raises(ReleaseError, match=r"v0\.0\.3 is in prod already"):
        promotion.rollback("prod", "digits", to="v0.0.3")
    with pytest.raises(ReleaseError, match="nothing is in stage canary; stages in use: prod"):
        promotion.rollback("canary", "digits")


def test_a_stage_emptied_with_gto_is_empty(three: Repository) -> None:
    tool("gto", "deprecate", "digits", "v0.0.3", "prod")
    assert promotion.read("digits").current("prod") is None
    with pytest.raises(ReleaseError, match="nothing is in stage prod"):
        promotion.rollback("prod", "digits")


def test_a_commit_registered_with_another_revision_is_refused(repository: Repository) -> None:
    tool("gto", "register", "digits")
    with pytest.raises(ReleaseError, match=r"digits v0\.0\.1 is this commit already, with revision unknown"):
        promotion.promote(RELEASE, "prod")


def test_the_tags_are_pushed_when_asked(repository: Repository, tmp_path: Path) -> None:
    repository.git("init", "-q", "--bare", str(tmp_path / "origin"))
    repository.git("remote", "add", "origin", str(tmp_path / "origin"))
    repository.git("push", "-q", "origin", "HEAD")
    promotion.promote(RELEASE, "prod", push=True)
    assert repository.git("--git-dir", str(tmp_path / "origin"), "tag").split() == ["digits#prod#1", "digits@v0.0.1"]


@pytest.mark.parametrize("stage", ["", "pro d", "prod#1"])
def test_a_stage_that_no_tag_can_hold_is_refused_and_nothing_is_registered(repository: Repository, stage: str) -> None:
    with pytest.raises(ReleaseError, match=r"^--stage: Invalid value"):
        promotion.promote(RELEASE, stage)
    assert repository.git("tag") == ""


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["slimline", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert not ended.value.code, captured.err
    return captured.out.splitlines()


def test_the_commands(
    repository: Repository,
    made: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = manifest.digest(RELEASE)[7:19]
    assert run(capsys, monkeypatch, "status") == ["no release is registered here"]
    shown = run(capsys, monkeypatch, "promote", "release", "--stage", "prod")
    assert shown[1].startswith(f"prod: v0.0.1, revision {one}, commit ")
    assert "git push --tags" in shown[2]
    repository.record(made["better"])
    two = manifest.digest(RELEASE)[7:19]
    run(capsys, monkeypatch, "promote", "--stage", "prod")
    shown = run(capsys, monkeypatch, "status")
    assert [line.split()[0:2] for line in shown] == [["digits"], ["v0.0.2", two], ["v0.0.1", one]]
    assert [line.split()[-1] for line in shown[1:]] == ["prod", "-"]
    shown = run(capsys, monkeypatch, "rollback", "--stage", "prod")
    assert shown[0].startswith(f"prod: v0.0.1, revision {one}, commit ")
    assert [line.split()[-1] for line in run(capsys, monkeypatch, "status")[1:]] == ["-", "prod"]
