"""The last label written for a row holds, every one before it is kept, and what was acknowledged is on the disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline.errors import EventError
from slimline.events import EventStore, Label, Outcome
from tests.events.conftest import SETTINGS, Make

VALUES = st.one_of(
    st.sampled_from(["cat", "dog", "", "Ünï ☃", "1"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**40), 2**40),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
)
LABELS = st.builds(Label, st.sampled_from("abc"), st.integers(0, 2), VALUES, st.floats(0, 2e9))


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    """One store for all of hypothesis' examples, emptied between them."""
    with EventStore.open(f"sqlite:///{tmp_path_factory.mktemp('labels') / 'events.db'}") as opened:
        yield opened


def check(store: EventStore, make: Make, batches: list[list[Label]], arrival: int) -> None:
    """Write batches of labels, the predictions (of two rows each) before batch ``arrival``; compare with a dict."""
    store.purge(before=1e12)
    state: dict[tuple[str, int], list[Any]] = {}
    for number, batch in enumerate(batches):
        if number == arrival:
            store.write([make(id_, labels=["x", "y"], outputs=[[0.0], [1.0]]) for id_ in "abc"])
        for label, outcome in zip(batch, store.label(batch), strict=True):
            own = state.setdefault((label.id, label.index), [])
            if number >= arrival and label.index >= 2:
                assert outcome is Outcome.NO_SUCH_ROW
                continue
            if not own:
                assert outcome is (Outcome.NEW if number >= arrival else Outcome.EARLY)
            else:
                same = repr(own[-1].label) == repr(label.label)  # 1 and 1.0 are two ways to say it, and kept apart
                assert outcome is (Outcome.DUPLICATE if same else Outcome.CORRECTED)
            if outcome is not Outcome.DUPLICATE:
                own.append(label)
    for (id_, index), labels in state.items():
        assert store.history(id_, index) == labels
    expected = {key: labels[-1].label for key, labels in state.items() if labels and key[1] < 2}
    found = {(row.id, row.index): row.label for row in store.labelled()}
    assert found == (expected if arrival < len(batches) else {})


@given(batches=st.lists(st.lists(LABELS, max_size=6), max_size=5), arrival=st.integers(0, 5))
@settings(max_examples=60)
def test_the_last_label_holds_and_the_history_is_whole(
    fast: EventStore, make: Make, batches: list[list[Label]], arrival: int
) -> None:
    check(fast, make, batches, arrival)


def test_the_same_on_postgresql(store: EventStore, make: Make) -> None:
    batches = [
        [Label("a", 0, "cat", 5.0), Label("a", 0, "dog", 4.0), Label("a", 0, "dog", 6.0), Label("b", 2, 1.5, 7.0)],
        [Label("a", 0, "cat", 1.0), Label("b", 2, "none", 8.0), Label("c", 1, ["x"], 9.0), Label("c", 1, ["x"], 9.0)],
    ]
    for arrival in range(3):
        check(store, make, batches, arrival)


def test_an_early_label_joins_when_its_prediction_comes(store: EventStore, make: Make) -> None:
    assert store.label([Label("later", 0, "dog")]) == [Outcome.EARLY]
    assert list(store.labelled()) == []
    assert store.counts()["early"] == 1
    store.write([make("later")])
    (row,) = store.labelled()
    assert (row.label, row.answer) == ("dog", "cat")
    assert store.counts()["early"] == 0


def test_a_clock_set_back_doesnt_bring_an_old_label_back(store: EventStore, make: Make) -> None:
    """The order of writing decides, no clock does."""
    store.write([make("x")])
    store.label([Label("x", 0, "first", time=2000.0)])
    store.label([Label("x", 0, "second", time=1000.0)])
    (row,) = store.labelled()
    assert (row.label, row.labelled) == ("second", 1000.0)
    assert [each.label for each in store.history("x")] == ["first", "second"]


def test_a_shadows_answer_is_judged_by_the_same_label(store: EventStore, make: Make) -> None:
    store.write([make("x"), make("x", variant="next", shadow=True, labels=["dog"])])
    store.label([Label("x", 0, "dog")])
    assert [(row.variant, row.shadow, row.answer) for row in store.labelled()] == [
        ("main", False, "cat"), ("next", True, "dog"),
    ]  # fmt: skip
    assert [row.variant for row in store.labelled(shadow=False)] == ["main"]


def test_many_labels_are_read_page_by_page(store: EventStore, make: Make) -> None:
    store.write([make(f"p{i}", float(i // 10), labels=["a", "b"], outputs=[[0.0], [1.0]]) for i in range(60)])
    labels = [Label(f"p{i}", index, f"{i}.{index}") for i in range(60) for index in range(2)]
    assert set(store.label(labels)) == {Outcome.NEW}
    found = [row.label for row in store.labelled(since=1.0, until=5.0, page=7)]
    assert found == [f"{i}.{index}" for i in range(10, 50) for index in range(2)]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (Label("", 0, "x"), "id: expected text"),
        (Label("a\0b", 0, "x"), "id: expected text"),
        (Label("\ud800", 0, "x"), "surrogates not allowed"),
        (Label("a", -1, "x"), "index: expected a whole number"),
        (Label("a", 1.0, "x"), "index: expected a whole number"),  # type: ignore[arg-type]
        (Label("a", 0, float("nan")), "not JSON compliant"),
        (Label("a", 0, None), "expected text, a number or a list"),  # type: ignore[arg-type]
        (Label("a", 0, label=True), "expected text, a number or a list"),
    ],
)
def test_what_is_no_label_changes_nothing(store: EventStore, label: Label, message: str) -> None:
    with pytest.raises(EventError, match=message):
        store.label([Label("good", 0, "x"), label])
    assert store.counts()["labels"] == 0


def test_labels_of_two_processes_at_once(store: EventStore, url: str, make: Make) -> None:
    """Each corrects the other's: one label holds in the end, and none of the history is lost."""
    store.write([make("x")])
    code = (
        "import sys\nfrom slimline.events import EventStore, Label\n"
        "with EventStore.open(sys.argv[1], timeout=60) as store:\n"
        "    for turn in range(40): store.label([Label('x', 0, sys.argv[2] + str(turn))])\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, url, who]) for who in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    history = [str(each.label) for each in store.history("x")]
    for who in "ab":
        assert [each for each in history if each.startswith(who)] == [f"{who}{turn}" for turn in range(40)]
    (row,) = store.labelled()
    assert row.label == history[-1]


def test_an_acknowledged_label_outlives_kill_9(url: str) -> None:
    code = (
        "import sys\nfrom slimline.events import EventStore, Label\n"
        "store = EventStore.open(sys.argv[1])\n"
        "for number in range(100_000):\n"
        "    store.label([Label(f'p{number}', 0, 'x')])\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(50):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split("\n")[:-1]  # acknowledged before the signal arrived; the last line is whole
        last = int(rest[-1]) if rest else last
    with EventStore.open(url) as store:
        assert store.counts()["labels"] in {last + 1, last + 2}  # one more may be written and not yet acknowledged
        assert [each.label for each in store.history(f"p{last}")] == ["x"]


def test_an_acknowledged_label_outlives_a_crash_of_the_server(server: Any) -> None:
    """The server runs with synchronous_commit off: predictions may go with it, labels ask for the disk."""
    url = server.database()
    with EventStore.open(url) as store:
        for number in range(20):
            store.label([Label(f"p{number}", 0, "x")])
        server.stop("immediate")
        with pytest.raises(EventError) as caught:
            store.label([Label("away", 0, "x")])
        assert caught.value.reason == "unreachable"
        server.start(*SETTINGS)
        assert store.counts()["labels"] == 20
        assert store.label([Label("away", 0, "x")]) == [Outcome.EARLY]
