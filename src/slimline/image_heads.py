"""How large an encoded image will be, from its head alone: a small file can unpack to gigabytes. Needs no torch."""

from __future__ import annotations

import io

from slimline.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # Pillow reads others, PostScript by running a program
BEYOND = 2**40  # what Pillow itself calls a bomb


def pixels(image: bytes) -> int:
    """Return width × height of an encoded image. Raises DataError for bytes that are none of FORMATS."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image), formats=FORMATS) as picture:
            width, height = picture.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return BEYOND
    except Exception as error:  # damaged bytes make Pillow's readers raise anything
        raise DataError("not an image that can be read") from error
    return int(width * height)
