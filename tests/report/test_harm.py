"""Classes that a stage harmed are marked, in the table and in the picture."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from slimline import benchmark
from slimline.report import harm
from slimline.report.picture import COST

from .page import Page, table
from .project import HARMED, LABELS, MEASURED, Project, made_up

FULL = f'style="fill: var(--cost, {COST})'
STAGES = [stage for stage in MEASURED if stage != "teacher"]
SCRIPT = """<script>onload = () => {
  const texts = [...document.querySelectorAll('svg[aria-label^="change in recall"] text')]
  document.title = `letters: ${Math.max(...texts.map(text => text.getBoundingClientRect().height))}`
}</script>"""


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


def test_of_several_labels_a_row_each_is_shown_with_its_recall(project: Project) -> None:
    rng = np.random.default_rng(0)
    y = rng.random((500, len(LABELS))) < 0.5
    missed = y.copy()
    missed[:200, LABELS.index(HARMED)] = False
    for stage, own in (("teacher", y), *((stage, missed) for stage in STAGES)):
        project.benchmark["stages"][stage]["per_class"] = benchmark.per_label(LABELS, y, own, y, 0.95)
    rows = table(project.report()[1], "Recall by class")
    lost = 100 * y[:200, LABELS.index(HARMED)].sum() / y[:, LABELS.index(HARMED)].sum()
    assert rows[HARMED]["teacher's recall"].startswith("100.0%")
    assert rows[HARMED]["factorize, points"].startswith(f"−{lost:.1f} **harmed** ")
    assert rows["Shirt"]["factorize, points"].startswith("±0.0 (")


@pytest.mark.parametrize("stages", [["quantize"], STAGES[1:3], STAGES], ids=["one", "two", "four"])
@pytest.mark.parametrize("width", [500, 1400])
def test_its_letters_are_those_of_the_page_however_few_the_stages(
    project: Project, tmp_path: Path, stages: list[str], width: int
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium isn't installed: apt-get install chromium")
    project.params["export"]["stages"] = ["teacher", *stages]
    page = tmp_path / "page.html"
    page.write_text(project.report()[0].replace("</html>", f"{SCRIPT}</html>"), encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'own'}",
        f"--window-size={width},900", page.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"<title>letters: ([\d.]+)</title>", shown)
    assert found, shown[:500]
    assert 10 < float(found[1]) < 20
