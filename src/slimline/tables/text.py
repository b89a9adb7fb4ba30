"""Lines of text, which is UTF-8."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimline.errors import DataError

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded(file: Any, path: Path) -> Iterator[str]:
    """Yield the lines of a file that is open for bytes. Raises DataError where they aren't UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            likely = "UTF-16" if number == 1 and line.startswith(UTF_16) else "WINDOWS-1252"
            files = shlex.quote(path.name), shlex.quote(path.with_suffix(f".utf8{path.suffix}").name)
            raise DataError(
                f"{path}: line {number}: not UTF-8 ({error.reason} at byte {error.start}); was it saved as {likely}? "
                f"iconv -f {likely} -t UTF-8 {files[0]} > {files[1]}"
            ) from error
