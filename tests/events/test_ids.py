"""An id belongs to one prediction, whoever makes it."""

from __future__ import annotations

import os

from slimline.events import new_id


def test_ids_grow_and_differ() -> None:
    made = [new_id() for _ in range(2000)]
    assert len({each[16:] for each in made}) == len(made)
    assert made == sorted(made, key=lambda each: each[:16])
    assert {len(each) for each in made} == {32}


def test_a_forked_process_makes_other_ids() -> None:
    new_id()  # the bytes are fetched, and would be inherited
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, "".join(new_id()[16:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 50 * 16).decode()
    assert not {theirs[at : at + 16] for at in range(0, len(theirs), 16)} & {new_id()[16:] for _ in range(50)}
    os.close(reading)
    os.close(writing)
