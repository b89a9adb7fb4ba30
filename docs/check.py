"""Check the documents: links lead somewhere, make targets and commands exist, and README's table is the report's.

python docs/check.py           # what ``make check`` runs
python docs/check.py --write   # copy the report's table into README.md
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARKS = ("<!-- report: begin -->", "<!-- report: end -->")


def main() -> int:
    """Print every mistake and return how many there are."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
    wrong = [each for page in pages for each in broken_links(page) + unknown_commands(page)]
    if "--write" in sys.argv:
        write_table()
    elif table_of(ROOT / "README.md") != report_table():
        wrong.append("README.md: its table is not the report's; run python docs/check.py --write")
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


def report_table() -> str:
    """Return the stage table of report/report.md."""
    text = (ROOT / "report" / "report.md").read_text(encoding="utf-8")
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return rows.group(0).strip() if rows else ""


def table_of(page: Path) -> str:
    """Return what stands between the marks."""
    _, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    return rest.partition(MARKS[1])[0].strip()


def write_table() -> None:
    """Put the report's table between README's marks."""
    page = ROOT / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n{report_table()}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main() > 0)
