"""What ``slimline init`` lays out, and what it refuses."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from slimline import params, pipeline
from slimline.deployment import Deployment
from slimline.errors import DataError, ParamsError
from slimline.model_repository.repository import Options, write
from slimline.project import layout, own_project
from tests.pictures import write_folders


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "s", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.mark.parametrize("fast", [False, True], ids=["no-bf16", "bf16"])
def test_what_this_machine_decided_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": fast})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    own = own_project.Own("resnet", write_folders(repository / "pictures", 2))
    done = layout.lay_out(repository, recipe="int8", limit=None, own=own)
    assert any("precision: bf16, since this machine" in line for line in done) is fast
    assert "size: images are brought to 64×64 pixels; --size H [W] takes another" in done
    assert ("bf16" in (repository / "params.yaml").read_text()) is fast


@pytest.mark.parametrize("recipe", layout.RECIPES)
@pytest.mark.parametrize("task", layout.tasks())
def test_every_recipe_is_valid_and_runs_what_it_says(task: str, recipe: str) -> None:
    document = yaml.safe_load(layout.params_text(task, recipe, 500))
    settings = params.parse(document)
    assert settings.limit == 500
    order = pipeline.check_order(document)
    assert (
        order
        == {
            "int8": ["teacher", "quantize"],
            "small": ["teacher", "distill", "prune", "quantize"],
            "smallest": ["teacher", "distill", "prune", "quantize", "factorize"],
        }[recipe]
    )
    if recipe == "int8":
        quantize = settings.compressions["quantize"]
        assert isinstance(quantize, params.Compression)
        assert quantize.recovery is not None
        assert quantize.recovery.epochs == 0


def test_a_file_of_yours_is_never_overwritten(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(ParamsError, match=r"dvc\.yaml: exists and differs"):
        layout.lay_out(repository, task="digits", recipe="smallest", limit=None)
    assert (repository / "dvc.yaml").read_text() == "stages: {}\n"
    assert not (repository / "params.yaml").exists()
    assert not (repository / "stages").exists()
    assert layout.differences(repository)


def test_another_init_says_what_to_do_about_params(repository: Path) -> None:
    layout.lay_out(repository, task="digits", recipe="smallest", limit=None)
    with pytest.raises(ParamsError, match=r"params\.yaml: exists and differs; edit it, or remove it and init again"):
        layout.lay_out(repository, task="digits", recipe="int8", limit=None)


@pytest.mark.parametrize(("task", "recipe"), [("digit", "int8"), ("digits", "smaller")])
def test_unknown_choices_name_the_near_miss(repository: Path, task: str, recipe: str) -> None:
    with pytest.raises(ParamsError, match="Did you mean"):
        layout.lay_out(repository, task=task, recipe=recipe, limit=None)


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="git init"):
        layout.lay_out(tmp_path, task="digits", recipe="int8", limit=None)


def test_a_wrong_argument_is_told_before_a_missing_repository(tmp_path: Path) -> None:
    """Who made both mistakes would otherwise set up git first, to be told of the other."""
    missing = own_project.Own("resnet", tmp_path / "pictures")
    with pytest.raises(DataError, match=f"^{tmp_path}/pictures: no such"):
        layout.lay_out(tmp_path, recipe="int8", limit=None, own=missing)


def test_a_repository_that_was_served_stays_clean(repository: Path, two_releases: tuple[Path, Path]) -> None:
    """Promote refuses a dirty tree, and what README's commands make lies in the working directory."""
    layout.lay_out(repository, task="digits", recipe="int8", limit=None)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "add", "-A"], cwd=repository, check=True)
    subprocess.run([*git, "commit", "-qm", "project"], cwd=repository, check=True)
    for name in ("events.db", "events.db-wal", "events.db-shm"):
        (repository / name).touch()
    deployment = Deployment(repository / "deploy")
    deployment.activate(deployment.install(two_releases[0]))
    write([two_releases[0]], repository / "models", Options())
    (repository / "window.html").touch()
    status = subprocess.run([*git, "status", "--porcelain"], cwd=repository, check=True, capture_output=True, text=True)
    assert status.stdout == ""
    for name in ("deploy/service.yaml", "models-of-mine/model.py"):
        assert subprocess.run([*git, "check-ignore", "-q", name], cwd=repository).returncode == 1, "not ours"


@pytest.mark.parametrize("own", ["", ".env\n"], ids=["nothing", "env"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_the_command_that_is_named_adds_what_was_laid_out_and_init_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, elsewhere: bool
) -> None:
    """What the repository ignores, git refuses to be told of."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    repository = tmp_path / "my project"
    repository.mkdir()
    (repository / ".gitignore").write_text(own)
    for command in (["init", "-q"], ["add", ".gitignore"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    monkeypatch.chdir(tmp_path if elsewhere else repository)

    done = layout.lay_out(Path("my project" if elsewhere else "."), task="digits", recipe="int8", limit=None)

    def names(*command: str) -> list[str]:
        found = subprocess.run([*git, *command], cwd=repository, check=True, capture_output=True, text=True)
        return found.stdout.splitlines()

    assert names("diff", "--cached", "--name-only") == []
    (command,) = [line.removeprefix("next: ") for line in done if line.startswith("next: ")]
    subprocess.run(shlex.split(command), check=True)
    added = {name.partition("/")[0] for name in names("diff", "--cached", "--name-only")}
    assert added == {".dvc", ".dvcignore", ".env", ".gitignore", "dvc.yaml", "params.yaml", "stages"} - {own.strip()}
    assert names("status", "--porcelain", "--untracked-files=all") == names("status", "--porcelain", "-uno")
