"""What a request may be at most. Everything above is refused with 4xx before it costs anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each field is an environment variable too: ``max_rows`` is SLIMLINE_MAX_ROWS."""

    max_body_bytes: int = 16 * 2**20
    max_rows: int = 1024
    max_axis: int = 4096  # any axis of a size that the model leaves open, such as a sequence's length
    max_text_chars: int = 100_000
    max_request_chars: int = 2**21  # of all texts of a request: half a second of a thread
    max_pixels: int = 2**24  # of one image, before it is decoded: a small file can unpack to gigabytes
    max_request_pixels: int = 2**26  # of all images of a request
    max_id_chars: int = 128
    max_waiting_rows: int = 4096  # rows in the queue; more are shed with 429
    max_in_progress: int = 1024  # requests at once; more are shed with 503
    max_held_bytes: int = 2**28  # bodies in memory, of all requests; who brings more is shed with 503
    body_seconds: float = 10.0
    answer_seconds: float = 30.0  # who would wait longer in the queue is shed at once, with 429
