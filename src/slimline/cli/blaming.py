"""Commands about a release that got worse: which stage did it, and take it out of traffic."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from slimline.cli.options import moment

if TYPE_CHECKING:
    from slimline.monitor.blame import Rows

app = typer.Typer(rich_markup_mode=None)
REVISION = "sha256:"  # people may leave it out of an alarm's id


@app.command()
def blame(
    release: Annotated[Path, typer.Argument(help="The release directory, or a deployment folder.")] = Path("release"),
    *,
    store: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            envvar="SLIMLINE_EVENT_STORE",
            help="What it answered: sqlite:///FILE or postgresql+psycopg://…; the events.db here, if there is one; '': "
            "nothing, its own reference rows alone.",
        ),
    ] = None,
    since: Annotated[Optional[str], typer.Option(help="2026-01-31T12:00+01:00 (UTC if not said), or 90m, 24h.")] = None,  # noqa: UP045
    until: Annotated[Optional[str], typer.Option(help="The same; now.")] = None,  # noqa: UP045
    variant: Annotated[Optional[str], typer.Option(help="Only what it answered as this variant.")] = None,  # noqa: UP045
    inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Instead of the store: images, .csv, .parquet or .npz to send through every stage."),
    ] = None,
    labels: Annotated[str, typer.Option(help="The column, or array, of --inputs that holds the truth.")] = "label",
    incumbent: Annotated[Optional[Path], typer.Option(help="The release before it, to compare stage by stage.")] = None,  # noqa: UP045
    signal: Annotated[Optional[str], typer.Option(help="What raised the alarm, such as accuracy or latency.")] = None,  # noqa: UP045
    params_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--params", help="The monitor's --params, whose section monitor holds; by default the release's."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="A folder for blame.json, blame.md and blame.png.")] = None,  # noqa: UP045
) -> None:
    """Say at which stage answers flipped or time was lost.

    It is a stage, serving, data or nothing; exit 1 unless nothing.
    """
    from contextlib import nullcontext

    from slimline import params
    from slimline.deployment import release_in
    from slimline.events import DEFAULT_URL, EventStore
    from slimline.monitor import blame as blaming
    from slimline.monitor.blame import inputs as rows_of
    from slimline.monitor.blame import page

    release, incumbent = release_in(release), None if incumbent is None else release_in(incumbent)
    settings = None if params_file is None else params.load(params_file).monitor
    start, end = moment("--since", since), moment("--until", until)
    rows: Rows | None = None if inputs is None else rows_of.read(release, inputs, labels)
    if store is None and rows is None and Path(DEFAULT_URL.removeprefix("sqlite:///")).is_file():
        store = DEFAULT_URL
        print(f"what was answered is read from {store}; --store '' leaves it out", file=sys.stderr)
    with nullcontext() if not store or rows is not None else EventStore.open(store, create=False) as opened:
        found = blaming.blame(
            release, opened, since=start, until=end, variant=variant, rows=rows, incumbent=incumbent, signal=signal,
            settings=settings,
        )  # fmt: skip
    print("\n".join(page.lines(found)))
    if out is not None:
        print(f"written: {', '.join(map(str, page.write(found, out)))}")
    if found.kind != "nothing":
        raise typer.Exit(1)


@app.command()
def undo(
    alarm: Annotated[Optional[str], typer.Argument(help="An alarm's id, or its beginning, as --list shows it.")] = None,  # noqa: UP045
    *,
    list_: Annotated[bool, typer.Option("--list", help="Show what was done about which alarm.")] = False,
    forgive: Annotated[
        bool, typer.Option("--forgive", help="The alarm was wrong: its release may be gone back to.")
    ] = False,
    lock: Annotated[Optional[str], typer.Option(help="Hold undo off, for this reason, until --unlock.")] = None,  # noqa: UP045
    unlock: Annotated[bool, typer.Option("--unlock", help="Let undo act again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change and write nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where the journal is: the monitor's --undo.")] = Path(".slimline/undo"),
    deployment: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The monitor's --deployment, where the pointer is moved unless params name another target."),
    ] = None,
    params_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--params", help="Its monitor.undo says how; by default the one in --deployment's release, or params.yaml."
        ),
    ] = None,
) -> None:
    """Take the release of an alarm out of traffic.

    What is done, params.yaml's monitor.undo says; exit 1 when it can't be.
    """
    from slimline.errors import UndoError
    from slimline.monitor.journal import Journal
    from slimline.monitor.undo import Undo, alarm_of

    journal = Journal(folder)
    if (alarm is not None) + list_ + (lock is not None) + unlock != 1:
        raise UndoError("undo takes one of ALARM, --list, --lock REASON and --unlock")
    if list_:
        print("\n".join(_told(each) for each in journal.lines()) or f"{folder}: no alarm was told yet")
        if held := journal.held():
            print(f"held by {held['by']}: {held['why']}")
    elif lock is not None:
        begun = journal.hold(getpass.getuser(), lock)
        print(f"{folder}: undo is held off, and nothing is being moved")
        if begun is not None:
            print(f"but who began this was killed, so see whether it goes on: {_told(begun)}")
    elif unlock:
        journal.release(getpass.getuser())
        print(f"{folder}: undo may act")
    else:
        begins = str(alarm).replace(REVISION, "")
        found = [each for each in journal.entries() if str(each["alarm"]).replace(REVISION, "").startswith(begins)]
        if len({each["alarm"] for each in found}) != 1:
            known = ", ".join(dict.fromkeys(str(each.get("alarm")) for each in journal.entries())) or "none"
            raise UndoError(f"{folder}: {alarm} is not one alarm; known: {known}")
        executor = Undo.configured(*_policy(deployment, params_file, folder))
        if forgive:
            print(executor.forgive(alarm_of(found[-1]), by=getpass.getuser()).why)
            return
        action = executor.handle(alarm_of(found[-1]), by=getpass.getuser(), accept=True, dry_run=dry_run)
        print(f"{action.outcome}: {action.why}")
        if action.outcome in {"failed", "held"}:
            raise typer.Exit(1)


def _policy(deployment: Path | None, params_file: Path | None, folder: Path) -> tuple[Any, ...]:
    """Return what an Undo is configured with, as the monitor that watches ``deployment`` has it."""
    from slimline import params
    from slimline.deployment import release_in
    from slimline.monitor import undo, watched

    if params_file is None and deployment is not None:
        release = release_in(deployment)
        own = watched.read("", "", shadow=False, release=release, chosen=None).params.undo
        where = str(release / "card.json")
    else:
        params_file = params_file or Path("params.yaml")
        own, where = params.load(params_file).monitor.undo, str(params_file)
    return undo.on(own, deployment), folder, None, where


def _told(entry: dict[str, object]) -> str:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(float(str(entry["time"])), UTC).isoformat(sep=" ", timespec="seconds")
    verdict = f" [{entry['verdict']}]" if entry.get("verdict") else ""
    return f"{when}  {entry['alarm'] or 'undo'}  {entry['outcome']}{verdict} by {entry['by']}: {entry['why']}"
