"""A deployment: a folder of releases and a pointer to the one that answers. Needs no torch and no git.

::

    DIR/releases/REVISION/    sealed releases, named by the hex of their revision
    DIR/current               a relative link to one of them, replaced by a rename
    DIR/history.jsonl         who was current since when

A release comes in under a temporary name, is checked against its digest, brought to the disk and renamed. It becomes
current only after it answered its golden requests. Those who change a deployment hold its lock; those who read it
need none: at any moment, through kill -9 and full disks, ``current`` leads to a whole release or to none.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimline import goldens, manifest
from slimline.errors import ArtifactError, ReleaseError
from slimline.predictor import Predictor

CURRENT = "current"
HISTORY = "history.jsonl"
LOCK_TIMEOUT = 300.0
REMEDY = "install the release again"
_REVISION = re.compile(r"(sha256:)?[0-9a-f]{64}")


class Deployment:
    """The deployment in the folder ``path``, which is made when a release is installed."""

    def __init__(self, path: Path | str, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self.path = Path(path)
        self.lock_timeout = lock_timeout
        self._releases = self.path / "releases"

    # -- reading -------------------------------------------------------------------------------------------------

    def revision(self) -> str | None:
        """Return the current revision, or None; one readlink."""
        try:
            return f"sha256:{os.readlink(self.path / CURRENT).rpartition('/')[2]}"  # noqa: PTH115  (it is polled)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReleaseError(f"{self.path / CURRENT}: not a link to a release; remove it and deploy again") from error

    def current(self) -> Path | None:
        """Return the directory of the current release, or None."""
        revision = self.revision()
        return None if revision is None else self.directory(revision)

    def directory(self, revision: str) -> Path:
        """Return where a release of ``revision`` stands or would stand."""
        if not _REVISION.fullmatch(revision):
            raise ReleaseError(f"{revision!r}: not a revision; it is sha256: and 64 hex digits")
        return self._releases / revision.removeprefix("sha256:")

    def releases(self) -> list[str]:
        """Return the revisions of all installed releases, the one installed last first."""
        if not self._releases.is_dir():
            return []
        found = [path for path in self._releases.iterdir() if _REVISION.fullmatch(path.name)]
        newest = sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))
        return [f"sha256:{path.name}" for path in newest]

    def previous(self) -> str | None:
        """Return the revision that a rollback leads to, or None."""
        return next((each for each in reversed(self._line()[:-1]) if self.directory(each).is_dir()), None)

    def history(self) -> list[dict[str, Any]]:
        """Return what was done, oldest first: {"time", "action": "activate|rollback", "revision"}."""
        try:
            text = (self.path / HISTORY).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        entries = []
        for line in text.splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # a line that a power cut tore: the link says what is current
        return entries

    def find(self, prefix: str) -> str:
        """Return the one installed revision that starts with ``prefix``, with or without ``sha256:``."""
        digits = prefix.removeprefix("sha256:")
        found = [each for each in self.releases() if each.removeprefix("sha256:").startswith(digits)]
        if len(found) != 1:
            known = ", ".join(short(each) for each in self.releases()) or "none"
            what = "is not installed" if not found else f"fits {len(found)} releases"
            raise ReleaseError(f"{self.path}: {prefix} {what}; installed: {known}")
        return found[0]

    # -- changing ------------------------------------------------------------------------------------------------

    def install(self, source: Path | str) -> str:
        """Bring a release (a directory) in, whole or not at all, and return its revision.

        Installing what is there already changes nothing, unless its files were damaged: then they are replaced.
        Raises ArtifactError naming a damaged file, ReleaseError when ``source`` is no release.
        """
        with self._locked():
            scratch = self._releases / f".incoming.{os.getpid()}.tmp"
            try:
                _copy(Path(source), scratch)
                revision = check_release(scratch, Path(source))
                if not self._is_whole(revision):
                    manifest.place(scratch, self.directory(revision))
            except OSError as error:
                raise manifest.told(error, self._releases) from error
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return revision

    def activate(self, revision: str) -> goldens.Agreement | None:
        """Make an installed release current, after its digest was checked and it answered its golden requests.

        Returns how it answered; None when it is current already. Raises ArtifactError or GoldenError, and what was
        current still is.
        """
        with self._locked():
            return self._switch(self.find(revision), "activate")

    def rollback(self) -> str:
        """Make the release current that was before, checked as in ``activate``, and return its revision."""
        with self._locked():
            previous = self.previous()
            if previous is None:
                raise ReleaseError(f"{self.path}: no release before the current one is installed")
            self._switch(previous, "rollback")
        return previous

    def prune(self, keep: int) -> list[str]:
        """Remove all but ``keep`` releases and return what went. The current one and its predecessor always stay."""
        with self._locked():
            installed = self.releases()
            order = dict.fromkeys(each for each in [*reversed(self._line()), *installed] if each in installed)
            kept = list(order)[: max(keep, 2 if self.previous() else 1)]
            gone = [each for each in installed if each not in kept]
            for each in gone:
                aside = self._releases / f".{each.removeprefix('sha256:')}.{os.getpid()}.tmp"
                self.directory(each).rename(aside)
                shutil.rmtree(aside)
        return gone

    def _switch(self, revision: str, action: str) -> goldens.Agreement | None:
        if revision == self.revision():
            return None
        directory = self.directory(revision)
        if (found := manifest.verify(directory, REMEDY)) != revision:
            raise ReleaseError(f"{directory}: its files are another release, {short(found)}; {REMEDY}")
        predictor = Predictor(directory)
        try:
            agreement = goldens.check(predictor, directory)
        finally:
            predictor.close()
        scratch = self.path / f".{CURRENT}.{os.getpid()}.tmp"
        try:
            scratch.unlink(missing_ok=True)
            scratch.symlink_to(Path("releases") / directory.name)
            scratch.replace(self.path / CURRENT)
            manifest.fsync_folder(self.path)
            self._record(action, revision)
        except OSError as error:
            raise manifest.told(error, self.path) from error
        return agreement

    def _record(self, action: str, revision: str) -> None:
        line = json.dumps({"time": round(time.time(), 3), "action": action, "revision": revision})
        path = self.path / HISTORY
        torn = path.is_file() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _line(self) -> list[str]:
        """Return the line of releases that led to the current one: a rollback takes the last one off it.

        The link is what counts: a deployer killed between link and history leaves one step to be guessed.
        """
        line: list[str] = []
        for entry in self.history():
            if entry["action"] == "rollback" and entry["revision"] in line:
                while line[-1] != entry["revision"]:
                    line.pop()
            else:
                line.append(entry["revision"])
        current = self.revision()
        if current is None:
            return []
        if line and line[-1] != current:
            line = line[:-1] if line[-2:-1] == [current] else [*line, current]
        return line or [current]

    def _is_whole(self, revision: str) -> bool:
        try:
            return manifest.verify(self.directory(revision)) == revision
        except ArtifactError:
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the deployment's lock, which the kernel frees when its holder dies; sweep what such holders left."""
        try:
            self._releases.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise manifest.told(error, self.path) from error
        with file:
            deadline = time.monotonic() + self.lock_timeout
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ReleaseError(
                            f"{self.path}: another deployer holds its lock for {self.lock_timeout:g} s; try again"
                        ) from None
                    time.sleep(0.05)
            self._sweep()
            yield

    def _sweep(self) -> None:
        for aside in self._releases.glob(".*.old.tmp"):  # a damaged release, set aside to be replaced
            target = self._releases / aside.name.split(".")[1]
            if not target.exists():
                aside.rename(target)
        for leftover in self._releases.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.path.glob(f".{CURRENT}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise ReleaseError(f"{source}: no such directory")
    target.mkdir()
    for path in sorted(source.rglob("*")):  # what a link leads to is copied, wherever it stands
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def check_release(directory: Path, source: Path) -> str:
    """Verify a release that came from ``source`` and return its revision."""
    if not (directory / manifest.MANIFEST).is_file():
        raise ReleaseError(f"{source}: no {manifest.MANIFEST}: not a release, or not all of it")
    try:
        revision = manifest.verify(directory, f"get {source} again")
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(directory), str(source))) from error
    if not (directory / "card.json").is_file():
        raise ReleaseError(f"{source}: no card.json: an export or artifact, not a release")
    return revision


def short(revision: str) -> str:
    """Return the first 12 hex digits of a revision, as it is shown to people."""
    return revision.removeprefix("sha256:")[:12]
