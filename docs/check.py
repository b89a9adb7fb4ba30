"""Check the documents: links lead somewhere, make targets and commands exist, tables are those last measured, each
alert has its runbook, and architecture.md has a place for each module.

python docs/check.py           # what ``make check`` runs
python docs/check.py --write   # copy the report's table into README.md, the others into docs/
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # what measures also makes the tables

from slimline.monitoring import rules
from tables import compression, monitoring, serving, training

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "docs" / "methods.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
MONITORING = ROOT / "docs" / "monitoring.md"
TABLES: list[tuple[Path, str, Callable[[Path], str]]] = [
    (ROOT / "README.md", "report", compression.report),
    (METHODS, "ablation", compression.ablation),
    (METHODS, "methods", compression.methods),
    (BENCHMARKS, "serving", serving.serving),
    (MONITORING, "regressions", monitoring.regressions),
    (BENCHMARKS, "soak", serving.soak),
    (BENCHMARKS, "timers", serving.timers),
    (BENCHMARKS, "training-loop", training.training_loop),
    (BENCHMARKS, "training-formats", training.training_formats),
    (BENCHMARKS, "own-data", training.own_data),
    (BENCHMARKS, "int8", training.int8),
    (BENCHMARKS, "peers", compression.peers),
    (BENCHMARKS, "memory", training.memory),
    (BENCHMARKS, "attention", training.attention),
    (MONITORING, "speed", monitoring.speed),
    (MONITORING, "simulated", monitoring.simulated),
    (MONITORING, "blame", monitoring.blame),
]  # page, the name in its marks, what stands between them


def main() -> int:
    """Print every mistake and return how many there are."""
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("README.md")),
    ]
    wrong = [each for page in pages for each in broken_links(page) + unknown_commands(page)]
    wrong += runbooks() + places(ARCHITECTURE.read_text(encoding="utf-8"))
    for page, name, table in TABLES:
        text = table(ROOT)
        if "--write" in sys.argv:
            write_table(page, name, text)
        elif table_of(page, name) != text:
            wrong.append(f"{page.name}: its {name} table is not what was measured; run python docs/check.py --write")
    print("\n".join(wrong) or f"docs: {len(pages)} pages hold")
    return len(wrong)


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [
        f"{page.relative_to(ROOT)}: no file {target}"
        for target in targets
        if "://" not in target and not (page.parent / target).exists()
    ]


def unknown_commands(page: Path) -> list[str]:
    """Return the make targets and slimline commands in a page's code that don't exist."""
    text = "\n".join(re.findall(r"```.*?```", page.read_text(encoding="utf-8"), re.DOTALL))
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = subprocess.run(
        [sys.executable, "-m", "slimline", "--help"], capture_output=True, text=True, check=True
    ).stdout
    wrong = [
        f"{page.name}: make {name}: no such target"
        for name in re.findall(r"^make ([\w-]+)", text, re.MULTILINE)
        if name not in targets
    ]
    wrong += [
        f"{page.name}: slimline {name}: no such command"
        for name in re.findall(r"^slimline ([a-z]+)", text, re.MULTILINE)
        if name not in shown
    ]
    return wrong


def runbooks() -> list[str]:
    """Return the alerts of a release that have no runbook, and the runbooks that no alert links to."""
    alerts = {f"{name}.md" for name in rules.names()}
    pages = {page.name for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    return [
        f"docs/runbooks: {name}: " + ("no such page" if name in alerts else "no such alert")
        for name in sorted(alerts ^ pages)
    ]


def places(page: str) -> list[str]:
    """Return the modules of the package that stand in no row of the page, or in two, and the rows' paths to nothing."""
    named: list[str] = []
    for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        named += [first, *(f"{Path(first).parent}/{other}" for other in others)]
    wrong = [f"architecture.md: no file {each}" for each in named if not (ROOT / each).exists()]
    folders = tuple(each for each in named if each.endswith("/"))
    for path in sorted((ROOT / "src" / "slimline").rglob("*.py")):
        module = str(path.relative_to(ROOT))
        rows = named.count(module) + module.startswith(folders)
        if rows != 1 and not path.name.startswith("__"):
            wrong.append(f"architecture.md: {module}: stands in {rows} rows, not in one")
    return wrong


def marks(name: str) -> tuple[str, str]:
    """Return the comments between which a table stands."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def table_of(page: Path, name: str) -> str:
    """Return what stands between the marks."""
    begin, end = marks(name)
    return page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between a page's marks."""
    begin, end = marks(name)
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    if not mark:
        return
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main() > 0)
