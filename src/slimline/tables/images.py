"""Images as the rows of a table: a folder or an archive of them, and which column of a file names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from slimline.errors import DataError
from slimline.own_data import image_names, image_stores
from slimline.own_data.image_stores import DAMAGED, Archive
from slimline.tables.table import Columns, Table

PATHS = ("path", "file_name", "filepath", "filename", "image", "img")  # of images; Hugging Face's folders say file_name
PATH = PATHS[0]


def path_column(names: Sequence[str]) -> str:
    """Return the column that names images' files: the first of ``PATHS`` that is there, ``path`` where none is."""
    return next((each for each in PATHS if each in names), PATH)


class Images(Table):
    """Images by name, in a folder or an archive, in the order in which they are read fastest; one column ``path``."""

    def __init__(self, path: Path) -> None:
        self._store = image_stores.store(path)
        names = (name for name in self._store.names() if image_names.is_image(name))
        self._files = [name for name in names if not image_names.is_hidden(name)]
        if not self._files:
            raise DataError(f"{path}: no image in it, by the suffixes of the formats that Pillow reads")
        super().__init__(path, [PATH], len(self._files))

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        for start in range(0, self.total, size):
            files = self._files[start : start + size]
            yield {PATH: list(files)}, start + len(files)

    def image(self, path: str) -> Path | bytes:
        if not isinstance(self._store, Archive):
            return self.path / path
        try:
            return self._store.read(path)
        except DAMAGED as error:
            raise DataError(f"can't be read from the archive: {error}") from error
