"""A report says what the benchmark says, of every exported stage, on a page that needs nothing else."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slimline import times
from slimline.report import tables

from .page import Page, number, table
from .project import LABELS, MEASURED, SUMMARY, WHY, Project, benchmark_row, made_up


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made_up(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The (HTML, Markdown) of the whole chain."""
    return made_up(tmp_path_factory.mktemp("whole")).report()


def test_page_parses_and_refers_to_nothing_outside(written: tuple[str, str]) -> None:
    html, _ = written
    parsed = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.elements}
    assert "http" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [attributes["href"] for _, attributes in parsed.elements if "href" in attributes]
    assert references
    assert {each.removeprefix("#") for each in references} <= set(ids)


def test_every_picture_is_described_and_names_every_stage(written: tuple[str, str]) -> None:
    parsed = Page(written[0])
    pictures = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    for label in ("accuracy by stage", "model file by stage", "latency p50, batch 1 by", "latency p50, batch 32 by"):
        assert set(MEASURED) <= parsed.svg(label)
    for label in ("latency p50 at batch 1:", "latency p50 at batch 32:", "model file:"):
        shown = ", ".join(parsed.svg(f"accuracy against {label}"))
        assert all(stage in shown for stage in MEASURED)
    assert {"teacher", "distill"} <= parsed.svg("training loss")
    assert {"teacher", "distill"} <= parsed.svg("validation accuracy")


def test_colours_follow_the_page(written: tuple[str, str]) -> None:
    html, _ = written
    body = html.split("</style>", 1)[1]
    outside_variables = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", body)
    assert not re.findall(r"#[0-9a-f]{6}\b", outside_variables)
    assert "prefers-color-scheme: dark" in html


def test_markdown_table_says_what_the_benchmark_says(written: tuple[str, str]) -> None:
    rows = table(written[1], "All numbers by stage")
    for stage, measured in ((stage, benchmark_row(stage)) for stage in MEASURED):
        expected = {
            "accuracy": measured["accuracy"],
            "macro F1": measured["macro_f1"],
            "parameters": measured["params"],
        }
        expected |= {"multiply-adds (MACs)": measured["macs"], "model file": measured["bytes"]}
        expected |= {f"latency p50, batch {batch}": each["p50"] for batch, each in measured["latency_ms"].items()}
        if stage != "teacher":
            expected |= {f"speed-up, batch {batch}": ratio for batch, ratio in measured["speedup"].items()}
            expected["accuracy drop"] = measured["drops"]["accuracy"]["drop"]
            expected["agreement with the teacher"] = measured["agreement"]
        for title, value in expected.items():
            assert number(rows[title][stage]) == pytest.approx(value, rel=0.005, abs=5e-5), (title, stage)
        low, high = re.findall(r"[\d.]+", rows["accuracy"][stage].split("(")[1])
        assert [float(low) / 100, float(high) / 100] == pytest.approx(measured["accuracy_ci"], abs=5e-5)
    assert rows["latency p50, batch 1"]["factorize"] == "0.0401 ms (p95 0.0481 ms)"


def test_a_stage_that_does_better_is_said_to_in_words(project: Project) -> None:
    row = project.benchmark["stages"]["factorize"]
    for drop in (row, row["drops"]["accuracy"]):
        drop["drop_ci" if drop is row else "ci"] = [-0.19, 0.02]
        drop["accuracy_drop" if drop is row else "drop"] = -0.083
    html, markdown = project.report()
    assert (
        table(markdown, "All numbers by stage")["accuracy drop"]["factorize"] == "8.30 points higher (−2.00 to 19.00)"
    )
    assert "- **accuracy: 8.30 points higher** (95% interval −2.00 to 19.00;" in markdown
    assert "drop of accuracy: -0.083 (a gain) [-0.19, 0.02]" in html
    assert "Teacher: resnet (depth 18)." in markdown


def test_rows_that_were_left_out_are_counted(project: Project, written: tuple[str, str]) -> None:
    """A limit above all splits' rows cuts nothing, and then there is nothing to warn of."""
    assert not any("were used" in text for text in written)
    project.benchmark["left_out"] = {"train": [500, 6000], "test": [500, 1000]}
    said = "500 of 6,000 train rows, 500 of 1,000 test rows were used:"
    assert all(said in text for text in project.report())


def test_stages_stand_in_chain_order_and_stale_exports_are_left_out(project: Project) -> None:
    project.params["export"]["stages"] = ["quantize", "teacher", "prune", "distill"]
    html, markdown = project.report()
    assert list(table(markdown, "All numbers by stage")["accuracy"]) == ["teacher", "distill", "prune", "quantize"]
    assert "factorize" not in html + markdown


def test_a_stage_that_gains_nothing_is_named_with_its_reasons(written: tuple[str, str]) -> None:
    html, markdown = written
    for text in ("".join(Page(html).text), markdown):
        assert "factorize saves less than 10% against quantize" in text
        assert SUMMARY in text
        assert f"layer 3: {WHY}" in text
        assert "quantize saves less" not in text  # 2% at batch 1, but 34% at batch 32 and 63% of bytes
    assert (
        "**prune**: −80% bytes, −49% latency at batch 1, −52% latency at batch 32, −0.18 points of accuracy."
        in markdown
    )


@pytest.mark.parametrize(
    ("batch", "factor", "little"),
    [("8", 0.91, True), ("8", 0.89, False), ("32", 0.89, False)],
    ids=["9% at one batch", "11% at the middle batch", "11% at the largest batch"],
)
def test_a_gain_at_any_batch_size_counts(project: Project, batch: str, factor: float, little: bool) -> None:
    before = project.benchmark["stages"]["quantize"]["latency_ms"][batch]["p50"]
    project.benchmark["stages"]["factorize"]["latency_ms"][batch]["p50"] = before * factor
    assert bool(tables.statements(project.study())[-1].little) == little


def test_without_recorded_choices_it_says_so(project: Project) -> None:
    (project.root / "decisions/factorize.json").unlink()
    assert tables.statements(project.study())[-1].little.endswith("it records no choice that says why.")


def test_a_stage_made_through_one_that_is_not_exported_says_so(project: Project) -> None:
    project.params["export"]["stages"] = ["teacher", "prune"]
    (statement,) = tables.statements(project.study())
    assert statement.text.startswith("−98% bytes")
    assert statement.text.endswith("(together with distill, not exported)")


def test_int8_only(project: Project) -> None:
    project.params["export"]["stages"] = ["teacher", "quantize"]
    project.params["quantize"]["from"] = "teacher"
    parsed = Page(project.report()[0])
    assert "distill" not in "".join(parsed.text)
    assert "121×" in parsed.text


def test_teacher_alone_has_nothing_to_compare(project: Project) -> None:
    project.params["export"]["stages"] = ["teacher"]
    html, markdown = project.report()
    assert "nothing to compare it with" in html
    assert "nothing to compare it with" in markdown


def test_missing_per_class_leaves_the_section_out(project: Project, written: tuple[str, str]) -> None:
    assert all("Recall by class" in text for text in written)
    project.params["budget"] = {}
    for row in project.benchmark["stages"].values():
        del row["per_class"]
    html, markdown = project.report()
    assert "Recall by class" not in html + markdown
    assert "sets no budget" in html
    Page(html)


def test_simpler_models_stand_beside_the_last_stage(project: Project) -> None:
    _, plain = project.report()
    assert "Simpler models" not in plain
    project.benchmark["baselines"] = {
        "TF-IDF + linear SVM": {"accuracy": 0.8712, "bytes": 2_650_000, "latency_ms": 0.91}
    }
    html, markdown = project.report()
    rows = table(markdown, "Simpler models")
    assert "Simpler models" in html
    assert list(rows) == ["teacher", "factorize", "TF-IDF + linear SVM"]
    assert rows["TF-IDF + linear SVM"]["size"] == "2.65 MB"
    assert number(rows["TF-IDF + linear SVM"]["accuracy"]) == pytest.approx(0.871, abs=0.0005)


def test_classes_stand_worst_first_and_odd_labels_are_safe(written: tuple[str, str]) -> None:
    html, markdown = written
    assert list(table(markdown, "Recall by class")) == ["Coat", "Shirt", r"$5 \| $10", "Bag & <b>belt</b>"]
    assert set(LABELS) <= Page(html).svg("change in recall by class")
    assert "<b>belt" not in html


def test_a_metric_that_is_no_score_is_shown_in_its_own_unit(project: Project) -> None:
    project.benchmark |= {"primary": "rmse", "higher_is_better": False}
    for stage, row in project.benchmark["stages"].items():
        for key in ("accuracy", "accuracy_ci", "accuracy_drop", "macro_f1", "per_class"):
            del row[key]
        row["rmse"] = 3.25 + 0.5 * list(MEASURED).index(stage)
        row["drop_ci"] = [row["rmse"] - 3.25 - 0.1, row["rmse"] - 3.25 + 0.1]
        row["drops"] = {"rmse": {"drop": row["rmse"] - 3.25, "ci": row["drop_ci"]}}
        row["lower_is_better"] = ["rmse"]
    project.params["budget"] = {"max_drop": {"rmse": 2.0}}
    html, markdown = project.report()
    rows = table(markdown, "All numbers by stage")
    assert rows["rmse"]["factorize"] == "5.25"
    assert rows["rmse rise"]["factorize"] == "2.00 (1.90 to 2.10)"
    assert "+0.500 rmse" in markdown
    assert "points" not in markdown
    assert "accuracy" not in html + markdown
    assert "✗ drop of rmse: 2 [1.9, 2.1], budget ≤ 2; kept, but not by the interval: more rows would tell\n" in markdown
    assert "factorize keeps the budget, but its intervals are too wide to tell" in html
    assert "over budget" not in html + markdown


def test_a_teacher_that_guesses_is_told_at_the_head_and_nothing_is_within_budget(project: Project) -> None:
    fact = "40.0% of 50 test answers are right, 40.2% would be by always answering 'a'"
    project.benchmark["teacher_at_chance"] = {"what": "no better than guessing", "fact": fact, "margin": -0.002}
    html, markdown = project.report()
    for text in ("".join(Page(html).text), markdown.replace("**", "")):
        head, _, rest = text.partition("times smaller")
        assert f"The teacher is no better than guessing: {fact}. What the stages lose against it says nothing." in head
        assert "factorize fails: the teacher is no better than guessing" in rest
        assert f"the teacher is no better than guessing: {fact}; a budget against it says nothing\n" in f"{rest}\n"
        assert "is within budget" not in text
        assert "over budget" not in text
    project.params["export"]["stages"] = ["teacher"]
    assert all("The teacher is no better than guessing" in text for text in project.report())


def test_a_busy_machine_is_told_once_under_the_headline(project: Project) -> None:
    project.benchmark["spread"] = 1.04
    assert not any("busy" in text for text in project.report())
    project.benchmark["spread"] = 1.528
    said = "The machine was busy while speed was measured: one speed-up is known to a factor of 1.53 only."
    html, markdown = project.report()
    for text in (html, markdown):
        assert text.count(said) == 1
    assert f"\n\n{said}\n\n**factorize is within" in markdown


def test_verdict_line_by_line(project: Project) -> None:
    project.params["budget"]["max_bytes"] = 90_000
    html, markdown = project.report()
    assert "factorize is over budget" in html
    assert "- ✗ bytes: 92,341, budget ≤ 90,000 – **over budget**" in markdown
    assert "- ✓ speed-up at batch 32: 34.09 [33.58, 34.54], budget ≥ 20" in markdown


def test_other_formats_say_what_was_run_and_what_only_built(project: Project) -> None:
    assert "Other formats" not in project.report()[1]
    path = project.root / "exports/quantize/facts.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    validation = {"accuracy": 0.9012, "drop": 0.0021, "agreement": 0.99, "rows": 5000}
    engine = {"status": "built", "bytes": 841_988, "library": "tensorrt-rtx 1.7.1.116", "compute": [80, 120]}
    facts["formats"] = {
        "onnx-trt": {"status": "run", "bytes": 4626, "validation": validation},
        "tensorrt": engine,
    }
    path.write_text(json.dumps(facts), encoding="utf-8")
    html, markdown = project.report()
    rows = table(markdown, "Other formats")
    assert rows["quantize: onnx-trt"]["accuracy on validation"] == "90.12% (drop 0.21 points on 5,000 rows)"
    assert rows["quantize: onnx-trt"]["size"] == "4.63 kB"
    assert rows["quantize: tensorrt"]["status"] == "built, not run: tensorrt-rtx 1.7.1.116 for SM80, SM120"
    assert "built, not run" in html


def test_times_are_those_of_stages_that_ran_here(project: Project) -> None:
    record = {"seconds": 4871.2, "when": "2026-11-24T13:02:11+00:00"}
    project.file(f"{times.FOLDER}/teacher.json", json.dumps(record))
    project.file(f"{times.FOLDER}/export@quantize.json", json.dumps(record | {"seconds": 4.24}))
    rows = table(project.report()[1], "Time taken")
    assert rows["teacher"]["took"] == "1 h 21 min (2026-11-24 13:02 UTC)"
    assert rows["export@quantize"]["took"] == "4.2 s (2026-11-24 13:02 UTC)"
    assert rows["benchmark"]["took"] == "not run here"
    assert rows["total of the 2 run here"]["took"] == "1 h 21 min"


def test_the_same_inputs_give_the_same_bytes(project: Project) -> None:
    project.report()
    first = {path.name: path.read_bytes() for path in (project.root / "report").iterdir()}
    shutil.rmtree(project.root / "report")
    project.report()
    assert {path.name: path.read_bytes() for path in (project.root / "report").iterdir()} == first


def test_report_imports_no_torch() -> None:
    code = "import sys, slimline.report.page; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
