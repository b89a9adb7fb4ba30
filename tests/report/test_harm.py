"""Classes that a stage harmed are marked, in the table and in the picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline.report import harm
from slimline.report.picture import COST

from .page import Page, table
from .project import HARMED, LABELS, MEASURED, Project, made_up

FULL = f'style="fill: var(--cost, {COST})'
STAGES = [stage for stage in MEASURED if stage != "teacher"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made_up(tmp_path)


def test_harmed_classes_alone_are_marked(project: Project) -> None:
    html, markdown = project.report()
    rows = table(markdown, "Recall by class")
    columns = [f"{stage}, points" for stage in STAGES]
    assert [rows[HARMED][column] for column in columns] == ["−3.1 **harmed** (−4.1 to −2.1; recall 86.9%)"] * 4
    assert [rows["Shirt"][column] for column in columns] == ["−0.2 (−1.2 to +0.8; recall 89.8%)"] * 4
    marked = [row[0] for row in Page(html).rows if any("harmed" in cell for cell in row)]
    assert marked == [HARMED]
    assert html.count('<span class="mark">harmed</span>') == len(STAGES)


def test_the_picture_has_a_panel_a_stage_and_a_full_dot_for_harm(project: Project) -> None:
    picture = harm.plot(project.study())
    assert picture is not None
    assert picture.svg in project.report()[0]
    assert set(LABELS) | set(STAGES) <= Page(picture.svg).svg("change in recall by class")
    assert picture.alt.count(f"{HARMED} −3.1 harmed") == len(STAGES) == picture.alt.count("harmed")
    assert picture.svg.count(FULL) == len(STAGES)


def test_harm_in_one_stage_is_marked_there_alone(project: Project) -> None:
    for stage in STAGES[1:]:
        project.benchmark["stages"][stage]["per_class"][HARMED]["harmed"] = False
    row = table(project.report()[1], "Recall by class")[HARMED]
    assert [("harmed" in row[f"{stage}, points"]) for stage in STAGES] == [True, False, False, False]
    picture = harm.plot(project.study())
    assert picture is not None
    assert picture.svg.count(FULL) == 1


def test_the_teacher_alone_harms_nobody(project: Project) -> None:
    project.params["export"]["stages"] = ["teacher"]
    study = project.study()
    assert (harm.table(study), harm.plot(study)) == (None, None)
