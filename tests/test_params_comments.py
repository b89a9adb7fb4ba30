"""What ``slimline init`` says in the params.yaml that it writes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from slimline import pipeline
from slimline.project import layout, own_project
from slimline.project.own_project import Own
from slimline.project.params_comments import commented
from tests.pictures import write_folders


def comments(text: str) -> dict[str, str]:
    """Return {the line below: comment}."""
    lines = text.splitlines()
    return {below.strip(): line.strip("# ") for line, below in pairwise(lines) if line.lstrip().startswith("#")}


@pytest.mark.parametrize("recipe", layout.RECIPES)
def test_what_is_changed_first_and_what_does_not_run_is_said(tmp_path: Path, recipe: str) -> None:
    own = Own("resnet", write_folders(tmp_path / "pictures", 2))
    text = own_project.params_text(own, tmp_path, recipe, None)
    document, said = yaml.safe_load(text), comments(text)
    stages = f"stages: [{', '.join(document['export']['stages'])}]"
    for line in ("labels: [blue, green, red]", "limit: null", "target:", stages, "budget:"):
        assert said.pop(line)
    idle = set(pipeline.stages(document)) - set(pipeline.check_order(document))
    assert idle
    assert said == {f"{stage}:": f"recipe {recipe} doesn't run it; dvc.yaml reads its keys" for stage in idle}


@pytest.mark.parametrize("recipe", ["int8", "small"])
@pytest.mark.parametrize("task", layout.tasks())
def test_tasks_that_come_along_have_them_too(task: str, recipe: str) -> None:
    said = comments(layout.params_text(task, recipe, 500))
    assert {"limit: 500", "target:", "budget:", "factorize:"} <= said.keys()


def test_comments_change_nothing() -> None:
    """Labels may be words that sections start with."""
    labels = ["limit:", "# no", "target", "a\n    labels: b", *(f"budget {at}" for at in range(40))]
    document = yaml.safe_load(layout.params_text("digits", "int8", None))
    document["task"]["args"] = {"labels": labels}
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)
    assert yaml.safe_load(commented(text, "int8")) == document
