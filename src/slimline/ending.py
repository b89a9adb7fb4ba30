"""How commands and stages end on an error that the user can do something about."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimline import manifest
from slimline.errors import SlimlineError


@contextmanager
def in_one_line() -> Iterator[None]:
    """Say a SlimlineError, a full disk or a file that may not be written in one line on stderr, and exit with 2."""
    said: Exception
    try:
        yield
    except SlimlineError as error:
        said = error
    except OSError as error:
        said = manifest.told(error, Path(error.filename or Path.cwd()))
        if said is error:
            raise
    else:
        return
    print(f"error: {said}", file=sys.stderr)
    raise SystemExit(2)
