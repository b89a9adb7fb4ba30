"""Where the releases of the revisions that answer are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slimline import manifest
from slimline.deployment import Deployment
from slimline.errors import ReleaseError, SlimlineError


class Releases:
    """Those installed in ``deployment`` and the directories ``folders``, by revision.

    Raises ArtifactError when one of ``folders`` is no release; what a deployment holds is looked up when it is asked
    for, since it changes.
    """

    def __init__(self, deployment: Path | None = None, folders: Sequence[Path] = ()) -> None:
        if deployment is not None and not (deployment / "releases").is_dir():
            raise ReleaseError(f"{deployment}: no deployment; slimline deploy makes one")
        self.deployment = None if deployment is None else Deployment(deployment)
        self._known = {manifest.digest(folder): folder for folder in folders}

    def find(self, revision: str) -> Path | None:
        """Return the directory of a release, or None."""
        if revision in self._known:
            return self._known[revision]
        if self.deployment is None:
            return None
        try:
            directory = self.deployment.directory(revision)
        except SlimlineError:  # a revision that some other server made up
            return None
        return directory if (directory / "card.json").is_file() else None

    def current(self) -> Path | None:
        """Return the release that the deployment answers with, or the first of ``folders``."""
        found = None if self.deployment is None else self.deployment.current()
        return found or next(iter(self._known.values()), None)

    def incumbent(self, revision: str) -> Path | None:
        """Return the directory of the release that was current before ``revision``, or None."""
        if self.deployment is None:
            return None
        before = [entry.get("from") for entry in self.deployment.history() if entry.get("revision") == revision]
        found = next((each for each in reversed(before) if each and each != revision), None)
        return None if found is None else self.find(found)
