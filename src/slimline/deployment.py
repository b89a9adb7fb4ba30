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

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimline import archive, goldens, json_lines, locking, manifest
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
        return next(iter(self.earlier()), None)

    def earlier(self) -> list[str]:
        """Return the installed releases that led to the current one, the one before it first."""
        return [each for each in reversed(self._line()[:-1]) if self.directory(each).is_dir()]

    def history(self) -> list[dict[str, Any]]:
        """Return what was done, oldest first: {"time", "action": "activate|rollback", "revision", "from"}."""
        return list(json_lines.read(self.path / HISTORY))  # of a torn line the link says whether it came to pass

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

    def install(self, source: Path | str, expect: str | None = None) -> str:
        """Bring a release in, whole or not at all, and return its revision.

        ``source`` is a directory, a packed file or a URL (``archive``), ``expect`` the beginning of the revision it
        has to have. Installing what is there already changes nothing, unless its files were damaged: then they are
        replaced. Raises ArtifactError naming a damaged file, ReleaseError when ``source`` is no release.
        """
        with self._locked():
            scratch = self._releases / f".incoming.{os.getpid()}.tmp"
            try:
                revision = archive.bring(str(source), scratch, expect)
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

    def rollback(self, to: str | None = None, *, leaving: str | None = None) -> str:
        """Make the release current that was before, checked as in ``activate``, and return the current revision.

        ``to`` is one of ``earlier``, for those who go further back. Unless ``leaving`` is current, nothing changes:
        somebody else has moved on.
        """
        with self._locked():
            if leaving is not None and (current := self.revision()) != leaving:
                return str(current)
            earlier = self.earlier()
            previous = next((each for each in earlier if to in {None, each}), None)
            if previous is None:
                what = "before the current one" if to is None or not earlier else f"{short(to)} before the current one"
                raise ReleaseError(f"{self.path}: no release {what} is installed")
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
            self._record(
                action, revision
            )  # first, so that a full disk stops here; the link says whether it came to pass
            scratch.replace(self.path / CURRENT)
            manifest.fsync_folder(self.path)
        except OSError as error:
            raise manifest.told(error, self.path) from error
        finally:
            scratch.unlink(missing_ok=True)
        return agreement

    def _record(self, action: str, revision: str) -> None:
        entry = {"time": round(time.time(), 3), "action": action, "revision": revision, "from": self.revision()}
        json_lines.append(self.path / HISTORY, entry)

    def _line(self) -> list[str]:
        """Return the releases that led to the current one, which comes last: a rollback takes them off again.

        What an entry says was current before it, and the link now, correct entries that never came to pass because
        their deployer was killed.
        """
        line: list[str] = []
        for entry in self.history():
            _lead(line, entry["from"])
            if entry["action"] == "rollback":
                _lead(line, entry["revision"])
            elif line[-1:] != [entry["revision"]]:
                line.append(entry["revision"])
        _lead(line, self.revision())
        return line

    def _is_whole(self, revision: str) -> bool:
        try:
            return manifest.verify(self.directory(revision)) == revision
        except ArtifactError:
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the deployment's lock, and sweep what holders left that died."""
        with locking.held(self.path, self.lock_timeout, ReleaseError):
            try:
                self._releases.mkdir(exist_ok=True)
            except OSError as error:
                raise manifest.told(error, self.path) from error
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


def _lead(line: list[str], to: str | None) -> None:
    """Make ``line`` end in ``to``: what came after it is taken off, or it is put on."""
    if to is None:
        line.clear()
    elif to not in line:
        line.append(to)
    while line and line[-1] != to:
        line.pop()


def release_in(path: Path) -> Path:
    """Return the directory of a release: ``path`` itself, or what is current in the deployment there.

    Raises ReleaseError where it is neither.
    """
    found = path if (path / "card.json").is_file() else Deployment(path).current()
    if found is None:
        raise ReleaseError(f"{path}: neither a release nor a deployment with a current one; slimline deploy makes one")
    return found


def lines(deployment: Deployment) -> list[str]:
    """Return what ``slimline status --deployment`` shows: the releases in a folder, and which one answers."""
    current, previous = deployment.revision(), deployment.previous()
    since = {entry["revision"]: entry["time"] for entry in deployment.history()}
    shown = [f"{deployment.path}: " + (f"current {short(current)}" if current else "no release is current")]
    for each in deployment.releases():
        role = "current" if each == current else "previous" if each == previous else "-"
        when = (
            time.strftime("  since %Y-%m-%d %H:%M:%SZ", time.gmtime(since[each]))
            if role == "current" and each in since
            else ""
        )
        shown.append(f"  {short(each)}  {role}{when}")
    return shown


def short(revision: str) -> str:
    """Return the first 12 hex digits of a revision, as it is shown to people."""
    return revision.removeprefix("sha256:")[:12]
