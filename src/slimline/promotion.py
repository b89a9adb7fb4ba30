"""Versions and stages of releases, as GTO keeps them: in annotated git tags. Needs no torch.

``NAME@vX.Y.Z`` registers a commit as a version; ``NAME#STAGE#N`` assigns a version to a stage, and the last one counts.
A tag's message says which revision was meant and why::

    promote fashion-mnist v0.0.2 to prod

    revision: sha256:…
    verdict: passed
    reason: …
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slimline import gate, manifest, provenance
from slimline.deployment import short
from slimline.errors import ReleaseError


@dataclass(frozen=True)
class Version:
    """A registered release. ``revision`` is None for a version that Slimline didn't register."""

    version: str
    commit: str
    time: datetime
    revision: str | None
    verdict: str | None


@dataclass(frozen=True)
class Assignment:
    """One step of a stage's history; ``version`` None: the stage was left empty."""

    stage: str
    version: str | None
    time: datetime
    action: str
    reason: str | None
    tag: str


@dataclass(frozen=True)
class History:
    """All that a repository's tags say of one artifact, oldest first."""

    name: str
    versions: list[Version]
    assignments: list[Assignment]

    def version(self, name: str) -> Version:
        """Return a registered version. Raises ReleaseError naming those that are."""
        for each in self.versions:
            if each.version == name:
                return each
        known = ", ".join(each.version for each in self.versions) or "none"
        raise ReleaseError(f"{self.name} has no version {name}; registered: {known}")

    def stages(self) -> list[str]:
        """Return the names of all stages that were ever assigned."""
        return sorted({each.stage for each in self.assignments})

    def current(self, stage: str) -> Assignment | None:
        """Return the assignment that counts for ``stage``, or None."""
        last = [each for each in self.assignments if each.stage == stage][-1:]
        return last[0] if last and last[0].version is not None else None

    def line(self, stage: str) -> list[str]:
        """Return the versions that led to the current one: a rollback takes the last ones off."""
        line: list[str] = []
        for each in self.assignments:
            if each.stage != stage or each.version is None:
                continue
            if each.action == "roll back" and each.version in line:
                while line[-1] != each.version:
                    line.pop()
            elif line[-1:] != [each.version]:
                line.append(each.version)
        return line


def promote(
    release: Path, stage: str, *, name: str | None = None, force: bool = False, reason: str = "", push: bool = False
) -> tuple[list[gate.Check], Version | None]:
    """Register a release as a version of HEAD's commit and assign it to ``stage``.

    Returns the gate's verdict and the version; None when the release is over budget and ``force`` isn't given. Raises
    ReleaseError when ``force`` comes without ``reason``, the tree is dirty, the release isn't what dvc.lock at HEAD
    records, or HEAD is registered with another revision.
    """
    reason = " ".join(reason.split())
    if force and not reason:
        raise ReleaseError("--force: give --reason TEXT too; it is written into the tag")
    commit = provenance.head()
    checks = gate.judge_release(release)
    provenance.check(release)
    failed = [check.what for check in checks if not check.ok]
    if failed and not force:
        return checks, None
    revision = manifest.digest(release)
    name = name or default_name(release)
    verdict = f"{gate.summary(checks).removeprefix('is ')}, forced: {', '.join(failed)}" if failed else "passed"
    facts = {"revision": revision, "verdict": verdict, "trial": gate.trial(release), "reason": reason}
    with _registry() as registry:
        _check_names(registry, name, stage)
        before = next((each for each in read(name).versions if each.commit == commit), None)
        if before is not None and before.revision != revision:
            raise ReleaseError(
                f"{name} {before.version} is this commit already, with revision {before.revision or 'unknown'}; "
                "commit before another release is registered"
            )
        if before is None:
            registered = registry.register(
                name, commit, message=_message(f"register {name}", facts), simple=True, push=push
            )
            version = str(registered.version)
        else:
            version = before.version
        current = read(name).current(stage)
        if current is None or current.version != version:
            title = f"promote {name} {version} to {stage}"
            registry.assign(name, stage, version=version, message=_message(title, facts), force=True, push=push)
    return checks, read(name).version(version)


def rollback(stage: str, name: str, *, to: str | None = None, reason: str = "", push: bool = False) -> Version:
    """Assign ``stage`` to the version before the current one, or to version ``to``, and return it."""
    history = read(name)
    current = history.current(stage)
    if current is None:
        raise ReleaseError(
            f"{name}: nothing is in stage {stage}; stages in use: {', '.join(history.stages()) or 'none'}"
        )
    if to is None:
        earlier = history.line(stage)[:-1]
        if not earlier:
            raise ReleaseError(f"{name}: no version was in {stage} before {current.version}; name one with --to")
        to = earlier[-1]
    target = history.version(to)
    if target.version == current.version:
        raise ReleaseError(f"{name} {to} is in {stage} already")
    facts = {
        "revision": target.revision or "unknown",
        "from": current.version or "",
        "reason": " ".join(reason.split()),
    }
    message = _message(f"roll back {name} to {to} in {stage}", facts)
    with _registry() as registry:
        registry.assign(name, stage, version=to, message=message, force=True, push=push)
    return target


def is_repository() -> bool:
    """Return whether versions can be read here: GTO is installed and there is a git repository."""
    try:
        names()
    except ReleaseError:
        return False
    return True


def names() -> list[str]:
    """Return the names of all artifacts in this repository's tags."""
    with _registry() as registry:
        return sorted(registry.get_artifacts())


def only_name() -> str:
    """Return the name of the one artifact in this repository. Raises ReleaseError when there is none, or several."""
    found = names()
    if not found:
        raise ReleaseError("no release is registered here; 'slimline promote' registers one")
    if len(found) > 1:
        raise ReleaseError(f"several releases are registered ({', '.join(found)}): choose one with --name")
    return found[0]


def default_name(release: Path) -> str:
    """Return the name a release is registered by unless told otherwise: its task's."""
    task = str(manifest.read_json(release / "card.json")["task"]["name"])
    return re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")


def read(name: str) -> History:
    """Return what the tags of this repository say of the artifact ``name``."""
    with _registry() as registry:
        artifact = registry.find_artifact(name, create_new=True)
        versions = [
            Version(
                each.version,
                each.commit_hexsha,
                each.created_at,
                _fact(each.message, "revision"),
                _fact(each.message, "verdict"),
            )
            for each in artifact.get_versions(active_only=True, include_non_explicit=False)
        ]
        events = [each for each in artifact.get_events() if getattr(each, "stage", None)]
    assignments = [_assignment(each) for each in sorted(events, key=_counter)]
    return History(name, sorted(versions, key=lambda each: _numbers(each.version)), assignments)


def lines(history: History) -> list[str]:
    """Return ``slimline status``: every version with the stages it is in, the newest first."""
    shown = [history.name]
    current = {stage: history.current(stage) for stage in history.stages()}
    for each in reversed(history.versions):
        stages = [stage for stage, found in current.items() if found is not None and found.version == each.version]
        revision = "?" * 12 if each.revision is None else short(each.revision)
        shown.append(
            f"  {each.version}  {revision}  commit {each.commit[:7]}  {each.time:%Y-%m-%d}  "
            f"{', '.join(stages) or '-'}" + f"  ({each.verdict})" * bool(each.verdict and each.verdict != "passed")
        )
    return shown if len(shown) > 1 else [f"{history.name}: no version is registered"]


def _check_names(registry: Any, name: str, stage: str) -> None:
    """Find out before the version is registered whether the stage can be assigned."""
    from gto.constants import assert_fullname_is_valid, assert_name_is_valid
    from gto.exceptions import GTOException

    valid: dict[str, tuple[str, Callable[[str], None]]] = {
        "name": (name, assert_fullname_is_valid),
        "stage": (stage, assert_name_is_valid),
    }
    for option, (value, check) in valid.items():
        try:
            check(value)
        except GTOException as error:
            raise ReleaseError(f"--{option}: {' '.join(str(error).split())}") from error
    registry.config.assert_stage(stage)  # a .gto file may list those that are allowed


def _assignment(event: Any) -> Assignment:
    given = type(event).__name__ == "Assignment"
    action = "roll back" if event.message.startswith("roll back ") else "promote" if given else "unassign"
    version = event.version if given else None
    return Assignment(event.stage, version, event.created_at, action, _fact(event.message, "reason"), event.tag)


def _counter(event: Any) -> tuple[int, float]:
    # a tag's time has whole seconds; GTO's counter knows which of two came first
    last = event.tag.rpartition("#")[2]
    return (int(last) if last.isdigit() else 0, event.created_at.timestamp())


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)]


def _message(title: str, facts: dict[str, str]) -> str:
    return "\n".join([title, "", *(f"{key}: {value}" for key, value in facts.items() if value)])


def _fact(message: str, key: str) -> str | None:
    found = re.search(rf"^{key}: (.+)$", message, re.MULTILINE)
    return found[1] if found else None


@contextmanager
def _registry() -> Iterator[Any]:
    """Open the registry of the repository around the working directory; its errors become one line."""
    try:
        from gto.exceptions import GTOException
        from gto.registry import GitRegistry
        from scmrepo.exceptions import SCMError
    except ModuleNotFoundError as error:
        raise ReleaseError(f"{error.name} is not installed: pip install 'slimline[train]'") from error
    try:
        with GitRegistry.from_url(".") as registry:
            yield registry
    except (GTOException, SCMError) as error:
        raise ReleaseError(f"GTO: {' '.join(str(error).split())}") from error
