"""A PostgreSQL server of the tests' own: a private folder, a Unix socket, a user that isn't root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def programs() -> Path | None:
    """Return the folder of the newest server that is installed, or None."""
    if PROGRAMS:
        return PROGRAMS[-1]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Server:
    """One cluster. ``start`` and ``stop`` may be called again and again; ``remove`` ends it for good."""

    def __init__(self, bin_: Path) -> None:
        self.bin = bin_
        self.user = self._user()
        self.folder = Path(tempfile.mkdtemp(prefix="slimline-postgres-", dir="/tmp"))  # a socket's path must be short
        self._numbers = count()
        if self.user != pwd.getpwuid(os.getuid()).pw_name:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-A", "trust", "-U", "slimline", "--no-sync", "-E", "UTF8", "-D", str(self.folder / "data"))

    def start(self, *settings: str) -> None:
        """Start the server and wait until it answers; ``settings`` are name=value."""
        options = f"-k {self.folder} -c listen_addresses='' {' '.join(f'-c {each}' for each in settings)}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "-t", "60", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends its sessions and says goodbye, ``immediate`` is a crash."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-w", "stop")

    def database(self, tablespace: Path | None = None) -> str:
        """Make a new database (its tables in an empty folder of the server's user, if given) and return its URL."""
        name = f"events{next(self._numbers)}"
        chosen = []
        if tablespace is not None:
            create = f"CREATE TABLESPACE {name} LOCATION '{tablespace}'"
            self._run("psql", "-h", str(self.folder), "-U", "slimline", "-c", create, "postgres")
            chosen = ["-D", name]
        self._run("createdb", "-h", str(self.folder), "-U", "slimline", *chosen, name)
        return f"postgresql+psycopg://slimline@/{name}?host={self.folder}"

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        subprocess.run(self._command("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop"), cwd="/")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _user(self) -> str:
        if os.getuid() != 0:
            return pwd.getpwuid(os.getuid()).pw_name
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"

    def _command(self, program: str, *arguments: str) -> list[str]:
        other = ["runuser", "-u", self.user, "--"] if os.getuid() == 0 else []
        return [*other, str(self.bin / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), cwd="/", capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{program}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
