"""A deployment holds whole releases and points to one that answers, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from slimline import manifest
from slimline.cli import app
from slimline.deployment import Deployment, short
from slimline.errors import ArtifactError, GoldenError, ReleaseError
from slimline.predictor import Predictor


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "deployed", lock_timeout=5)


@pytest.fixture
def both(deployment: Deployment, two_releases: tuple[Path, Path]) -> tuple[str, str]:
    """The revisions of two installed releases; none is current."""
    return deployment.install(two_releases[0]), deployment.install(two_releases[1])


def damage(release: Path, name: str = "chain/distill/model.onnx") -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray((release / name).read_bytes())
    content[len(content) // 2] ^= 1
    (release / name).write_bytes(content)


def another(source: Path, target: Path) -> Path:
    """Seal a copy of a release with one more file: it answers the same under another revision."""
    with manifest.sealed(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
        (scratch / "manifest.json").unlink()
        (scratch / "note").write_text(target.name)
    return target


def names(deployment: Deployment) -> set[str]:
    return {path.name for path in (deployment.path / "releases").iterdir()}


def test_an_empty_deployment_has_no_release(deployment: Deployment) -> None:
    assert (deployment.revision(), deployment.current(), deployment.previous()) == (None, None, None)
    assert (deployment.releases(), deployment.history()) == ([], [])


def test_a_release_is_installed_and_becomes_current(deployment: Deployment, two_releases: tuple[Path, Path]) -> None:
    revision = deployment.install(two_releases[0])
    assert revision == manifest.digest(two_releases[0])
    assert deployment.revision() is None, "installing switches nothing"
    found = deployment.activate(revision)
    assert found is not None
    assert found.answers == 16
    assert deployment.revision() == revision
    assert deployment.current() == deployment.path / "releases" / revision.removeprefix("sha256:")
    assert str((deployment.path / "current").readlink()) == f"releases/{revision.removeprefix('sha256:')}"
    assert Predictor(deployment.path / "current").revision == revision


def test_a_deployment_may_be_moved(deployment: Deployment, both: tuple[str, str], tmp_path: Path) -> None:
    deployment.activate(both[0])
    deployment.path.rename(tmp_path / "moved")
    assert Predictor(tmp_path / "moved" / "current").revision == both[0]


def test_installing_again_changes_nothing(deployment: Deployment, two_releases: tuple[Path, Path]) -> None:
    first = deployment.install(two_releases[0])
    before = deployment.directory(first).stat().st_ino
    assert deployment.install(two_releases[0]) == first
    assert deployment.directory(first).stat().st_ino == before


def test_installing_again_replaces_damaged_files(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path]
) -> None:
    damage(deployment.directory(both[0]))
    with pytest.raises(ArtifactError, match=r"model\.onnx: wrong digest, its bytes changed; install the release again"):
        deployment.activate(both[0])
    deployment.install(two_releases[0])
    deployment.activate(both[0])


@pytest.mark.parametrize("name", ["chain/distill/model.onnx", "golden.npz", "card.json", "chain/teacher/model.onnx"])
def test_a_release_with_a_damaged_file_is_refused_and_the_old_one_stays(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    deployment.activate(both[0])
    broken = tmp_path / "broken"
    shutil.copytree(two_releases[1], broken)
    damage(broken, name)
    with pytest.raises(ArtifactError, match=f"{broken}/{name}: wrong digest, its bytes changed; get {broken} again"):
        deployment.install(broken)
    assert names(deployment) == {each.removeprefix("sha256:") for each in both}
    assert deployment.revision() == both[0]


def test_a_sealed_release_that_answers_otherwise_is_refused(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    deployment.activate(both[0])
    with manifest.sealed(tmp_path / "sealed") as scratch:  # every digest is right, the model is another
        shutil.copytree(two_releases[0], scratch, dirs_exist_ok=True)
        shutil.copytree(two_releases[1] / "chain/distill", scratch / "chain/distill", dirs_exist_ok=True)
        (scratch / "manifest.json").unlink()
    revision = deployment.install(tmp_path / "sealed")
    with pytest.raises(GoldenError, match="distill doesn't answer its golden requests"):
        deployment.activate(revision)
    assert deployment.revision() == both[0]
    assert [entry["revision"] for entry in deployment.history()] == [both[0]]


def test_a_folder_whose_name_is_not_its_digest_is_refused(deployment: Deployment, both: tuple[str, str]) -> None:
    shutil.rmtree(deployment.directory(both[1]))
    shutil.copytree(deployment.directory(both[0]), deployment.directory(both[1]))
    with pytest.raises(ReleaseError, match=f"its files are another release, {short(both[0])}"):
        deployment.activate(both[1])


def test_what_is_no_release_is_refused(deployment: Deployment, two_releases: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"distill: no card\.json: an export or artifact, not a release"):
        deployment.install(two_releases[0] / "chain" / "distill")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError, match=r"empty: no manifest\.json: not a release"):
        deployment.install(tmp_path / "empty")
    with pytest.raises(ReleaseError, match="nowhere: no such"):
        deployment.install(tmp_path / "nowhere")
    assert names(deployment) == set()


@pytest.mark.parametrize("name", ["sha256:12", "../../etc", "", "sha256:" + "0" * 64])
def test_only_an_installed_revision_becomes_current(deployment: Deployment, both: tuple[str, str], name: str) -> None:
    with pytest.raises(ReleaseError, match=r"is not installed; installed: |fits 2 releases"):
        deployment.activate(name)


def test_a_short_revision_is_enough(deployment: Deployment, both: tuple[str, str]) -> None:
    deployment.activate(short(both[1]))
    assert deployment.revision() == both[1]


def test_rollback_goes_back_step_by_step(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    third = deployment.install(another(two_releases[0], tmp_path / "three"))
    for each in (*both, third):
        deployment.activate(each)
    assert deployment.previous() == both[1]
    assert deployment.rollback() == both[1]
    assert deployment.rollback() == both[0], "a second rollback doesn't lead back to what was rolled back"
    with pytest.raises(ReleaseError, match="no release before the current one"):
        deployment.rollback()
    deployment.activate(third)
    assert deployment.rollback() == both[0]
    assert [entry["action"] for entry in deployment.history()] == [
        "activate", "activate", "activate", "rollback", "rollback", "activate", "rollback",
    ]  # fmt: skip


def test_a_rollback_to_a_damaged_release_is_refused(deployment: Deployment, both: tuple[str, str]) -> None:
    for each in both:
        deployment.activate(each)
    damage(deployment.directory(both[0]))
    with pytest.raises(ArtifactError, match="wrong digest"):
        deployment.rollback()
    assert deployment.revision() == both[1]


def test_prune_keeps_the_current_one_and_its_predecessor(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    made = [*both, *(deployment.install(another(two_releases[0], tmp_path / name)) for name in ("c", "d", "e"))]
    deployment.activate(made[0])
    deployment.activate(made[1])
    assert set(deployment.prune(3)) == set(made[2:4])
    assert set(deployment.releases()) == {*made[:2], made[4]}
    assert deployment.prune(1) == [made[4]]
    assert deployment.rollback() == made[0]


def test_a_step_that_a_killed_deployer_wrote_down_and_did_not_take_counts_for_nothing(
    deployment: Deployment, both: tuple[str, str], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = both
    three = deployment.install(another(two_releases[0], tmp_path / "three"))
    deployment.activate(one)
    deployment._record("activate", two)
    assert (deployment.revision(), deployment.previous()) == (one, None)
    deployment.activate(three)
    assert deployment.previous() == one
    deployment._record("rollback", one)
    assert deployment.previous() == one
    deployment.activate(two)
    assert deployment.previous() == three
    assert [deployment.rollback(), deployment.rollback(), deployment.previous()] == [three, one, None]


def test_a_line_of_the_history_that_the_power_cut_tore_is_passed_over(
    deployment: Deployment, both: tuple[str, str]
) -> None:
    deployment.activate(both[0])
    with (deployment.path / "history.jsonl").open("a") as file:
        file.write('{"time": 17')
    deployment.activate(both[1])
    assert deployment.previous() == both[0]
    assert len(deployment.history()) == 2


DEPLOY = """
import sys
from slimline.deployment import Deployment
deployment = Deployment(sys.argv[1])
for source in sys.argv[2:]:
    deployment.activate(deployment.install(source))
"""


def deployer(deployment: Deployment, *sources: Path, code: str = DEPLOY) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", code, deployment.path, *sources]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_kill_9_during_install_leaves_whole_releases_only(
    deployment: Deployment, two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    deployment.activate(deployment.install(two_releases[0]))
    old = deployment.revision()
    large = tmp_path / "large"
    with manifest.sealed(large) as scratch:  # so large that a kill hits the copy
        shutil.copytree(two_releases[1], scratch, dirs_exist_ok=True)
        (scratch / "manifest.json").unlink()
        for part in range(8):
            (scratch / f"ballast{part}").write_bytes(np.random.default_rng(part).bytes(16 << 20))
    hit = 0
    for _ in range(4):
        process = deployer(deployment, large)
        scratch = deployment.path / "releases" / f".incoming.{process.pid}.tmp"
        deadline = time.monotonic() + 60
        while not (scratch / "ballast1").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hit += scratch.exists()
        assert deployment.revision() == old
        for revision in deployment.releases():
            assert manifest.verify(deployment.directory(revision)) == revision
    assert hit, "no kill came in the middle of a copy"
    revision = deployment.install(large)
    deployment.activate(revision)
    assert not [name for name in names(deployment) if name.endswith(".tmp")]


def test_deployers_at_once_take_turns(deployment: Deployment, two_releases: tuple[Path, Path]) -> None:
    known = [manifest.digest(each) for each in two_releases]
    processes = [deployer(deployment, *pair, *pair) for pair in (two_releases, two_releases[::-1])]
    seen = set()
    while any(process.poll() is None for process in processes):
        current = deployment.current()
        if current is not None:
            seen.add(manifest.verify(current))
    for process in processes:
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
    assert seen <= set(known)
    assert deployment.revision() in known
    assert names(deployment) == {each.removeprefix("sha256:") for each in known}
    changes = [entry["revision"] for entry in deployment.history()]
    assert changes[-1] == deployment.revision()
    assert all(a != b for a, b in itertools.pairwise(changes)), "what is current is not activated again"


HOLD = "import fcntl, sys, time\nfile = open(sys.argv[1] + '/.lock', 'a+')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
HOLD += "open(sys.argv[1] + '/held', 'w').close()\ntime.sleep(600)"


def test_a_lock_that_stays_held_is_an_error_and_a_killed_holder_frees_it(
    deployment: Deployment, both: tuple[str, str]
) -> None:
    process = deployer(deployment, code=HOLD)
    while not (deployment.path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(ReleaseError, match=r"another process holds its lock for 0\.2 s"):
        Deployment(deployment.path, lock_timeout=0.2).activate(both[0])
    process.kill()
    process.communicate()
    deployment.activate(both[0])


def test_a_file_in_the_place_of_the_link_is_an_error(deployment: Deployment, both: tuple[str, str]) -> None:
    (deployment.path / "current").write_text("")
    with pytest.raises(ReleaseError, match="current: not a link to a release"):
        deployment.revision()


def test_the_command_says_that_a_release_is_over_budget(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    """What promote refuses answers all the same: whoever deploys a trial has to be told so, and told what of."""

    line = {"limit": 0.2, "interval": [0.0, 0.4], "ok": False}

    def fail(_: Path, card: dict[str, Any]) -> None:
        card["verdict"]["checks"] += [
            line | {"kind": "drop", "what": "drop of f1", "value": 0.3},
            line | {"what": "bytes", "value": 0.1, "ok": True},
        ]
        card["benchmark"]["left_out"] = {"train": [500, 6000], "test": [500, 1000]}

    failing = resealed(two_releases[0], tmp_path / "failing", fail)
    good = resealed(two_releases[1], tmp_path / "good", lambda _, card: card["verdict"].update(checks=[]))
    to = ["--to", str(tmp_path / "deploy")]
    deploy = [[str(good)], [str(failing)], [str(failing)], ["--rollback"]]
    said = [CliRunner().invoke(app, ["deploy", *each, *to]) for each in deploy]
    assert [each.exit_code for each in said] == [0, 0, 0, 0]
    name = short(manifest.digest(failing))
    warning = (
        f"warning: {name} is over budget (drop of f1): promote refuses it; "
        f"slimline gate --release {tmp_path}/deploy/current has the numbers\n"
        f"warning: {name} is a trial, made with limit: 500 of 1,000 test rows, 500 of 6,000 train rows\n"
    )
    assert [each.stderr for each in said] == ["", warning, warning, ""]
    assert Deployment(tmp_path / "deploy").revision() == manifest.digest(good)
