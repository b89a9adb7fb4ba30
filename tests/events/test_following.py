"""A reader that remembers a position sees each prediction and each labelled row once, whatever came in which order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimline.events import Answers, EventStore, Label, News, Position, Truths
from tests.events.conftest import REVISION, Make

OWN = (REVISION, "main", False)


def test_predictions_come_in_columns(store: EventStore, make: Make) -> None:
    two = np.array([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]], np.float32)
    store.write(
        [
            make("a", 1.0, labels=["b", "a"], outputs=two, latency={"decode": 0.001, "total": 0.003}),
            make("b", 2.0, variant="canary"),
            make("c", 3.0, labels=["a"], outputs=two[1:], latency={"total": 0.002}),
        ]
    )
    news = store.after()
    by_source = {each.source: each for each in news.answers}
    assert set(by_source) == {OWN, (REVISION, "canary", False)}
    main = by_source[OWN]
    assert main.time.tolist() == [1.0, 3.0]
    assert main.labels == ["b", "a", "a"]
    assert main.request.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(main.outputs, two[[0, 1, 1]])
    np.testing.assert_array_equal(main.latency["total"], [0.003, 0.002])
    np.testing.assert_array_equal(main.latency["decode"], [0.001, np.nan])
    assert news.position == store.head() == Position(3, 0)
    assert store.after(news.position) == News(news.position, [], [])


def test_what_was_sampled_comes_with_its_rows(store: EventStore, make: Make) -> None:
    outputs = np.arange(9, dtype=np.float32).reshape(3, 3)
    teacher = np.array([[7, 8, 9], [4, 5, 6]], np.float32)
    store.write([make("a"), make("b", labels=["x"] * 3, outputs=outputs, sampled=[0, 2], stages={"teacher": teacher})])
    store.label([Label("b", 2, "x"), Label("b", 1, "x")])
    news = store.after()
    assert news.answers[0].sampled.tolist() == [1, 3]
    np.testing.assert_array_equal(news.answers[0].stages["teacher"], teacher)
    (truths,) = news.truths
    np.testing.assert_array_equal(truths.outputs, outputs[[2, 1]])
    assert truths.sampled.tolist() == [0]
    np.testing.assert_array_equal(truths.stages["teacher"], teacher[1:])


def test_however_many_were_sampled_few_statements_are_prepared(store: EventStore, make: Make) -> None:
    """A driver keeps each of them: one a number of samples was memory that grew for hours."""
    row, said = np.ones((1, 3), np.float32), set()
    engine = store.database._engines["read"]
    sa.event.listen(engine, "before_cursor_execute", lambda *told: said.add(told[2]))
    position = store.head()
    for count in range(1, 41):
        store.write([make(f"{count}-{each}", sampled=[0], stages={"teacher": row}) for each in range(count)])
        news = store.after(position)
        position = news.position
        assert len(news.answers[0].stages["teacher"]) == count
    of_stages = [each for each in said if "FROM stages" in each]
    assert 0 < len(of_stages) <= 7, "1, 2, 4, … 64 keys"


def test_a_row_sampled_by_a_release_with_more_stages_leaves_the_others_nan(store: EventStore, make: Make) -> None:
    row = np.ones((1, 3), np.float32)
    store.write(
        [make("a", sampled=[0], stages={"teacher": row}), make("b", sampled=[0], stages={"teacher": row, "prune": row})]
    )
    np.testing.assert_array_equal(store.after().answers[0].stages["prune"], [[np.nan] * 3, [1, 1, 1]])


def test_inputs_come_where_all_sampled_rows_kept_them(store: EventStore, make: Make) -> None:
    one, other = np.ones((1, 2, 3), np.float32), np.zeros((1, 2, 3), np.float32)
    row = np.ones((1, 3), np.float32)
    kept = {"sampled": [0], "stages": {"teacher": row}}
    store.write([make("a", **kept, inputs={"image": one}), make("b"), make("c", **kept, inputs={"image": other})])
    news = store.after()
    np.testing.assert_array_equal(news.answers[0].inputs["image"], np.concatenate([one, other]))
    store.write([make("d", **kept, inputs={"image": one}), make("e", **kept)])
    assert store.after(news.position).answers[0].inputs == {}


def test_an_early_label_comes_with_its_prediction(store: EventStore, make: Make) -> None:
    store.label([Label("a", 0, "dog", 5.0)])
    first = store.after()
    assert first == News(Position(0, 1), [], [])
    store.write([make("a", 6.0)])
    second = store.after(first.position)
    (truths,) = second.truths
    assert (truths.truths, truths.labels, truths.time.tolist(), truths.predicted.tolist()) == (
        ["dog"], ["cat"], [5.0], [6.0],
    )  # fmt: skip
    assert store.after(second.position).truths == []


def test_only_the_first_label_of_a_row_counts(store: EventStore, make: Make) -> None:
    store.write([make("a")])
    store.label([Label("a", 0, "dog")])
    position = store.after().position
    store.label([Label("a", 0, "cat"), Label("a", 0, "dog")])
    later = store.after(position)
    assert later.truths == []
    assert later.position.label > position.label


def test_a_label_of_a_request_answered_twice_counts_for_both(store: EventStore, make: Make) -> None:
    store.write([make("a"), make("a", variant="next", shadow=True)])
    store.label([Label("a", 0, "cat")])
    assert sorted(each.source for each in store.after().truths) == [OWN, (REVISION, "next", True)]


def test_other_kinds_of_labels_come_as_they_were(store: EventStore, make: Make) -> None:
    store.write([make(each, labels=None) for each in "abc"])
    store.label([Label("a", 0, 1.5), Label("b", 0, [1, 2]), Label("c", 0, 2**70)])
    (truths,) = store.after().truths
    assert truths.truths == [1.5, [1, 2], 2**70]
    assert truths.labels is None


def test_a_purge_does_not_lower_the_head(store: EventStore, make: Make) -> None:
    store.write([make("a", 1.0), make("b", 2.0)])
    store.label([Label("a", 0, "x")])
    store.purge(before=10.0)
    assert store.head() == Position(2, 1)
    store.write([make("c", 20.0)])
    assert [each.time.tolist() for each in store.after(Position(2, 1)).answers] == [[20.0]]


def _seen(news: News) -> tuple[list[float], list[tuple[float, object]]]:
    def rows(truths: Truths) -> list[tuple[float, object]]:
        return list(zip(truths.predicted.tolist(), truths.truths, strict=True))

    def times(answers: Answers) -> list[float]:
        return answers.time.tolist()

    return [time for each in news.answers for time in times(each)], [row for each in news.truths for row in rows(each)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.tuples(st.sampled_from(["predict", "label", "read"]), st.integers(0, 9)), max_size=60),
    limit=st.integers(1, 5),
)
def test_every_pair_comes_exactly_once(
    store: EventStore, make: Make, actions: list[tuple[str, int]], limit: int
) -> None:
    """Any interleaving of predictions, labels, corrections and reads of any size."""
    start = store.head()
    prefix = f"{start.prediction}-{start.label}-{np.random.default_rng().integers(2**60)}"  # examples share the store
    predicted: set[int] = set()
    labels: dict[int, str] = {}
    times: Counter[float] = Counter()
    pairs: Counter[tuple[float, object]] = Counter()
    position = start

    def read() -> bool:
        nonlocal position
        news = store.after(position, limit)
        moved, position = news.position != position, news.position
        found = _seen(news)
        times.update(found[0])
        pairs.update(found[1])
        return moved

    for number, (action, key) in enumerate(actions):
        if action == "predict":
            store.write([make(f"{prefix}-{key}", float(key))])
            predicted.add(key)
        elif action == "label":
            store.label([Label(f"{prefix}-{key}", 0, f"label {number}")])
            labels.setdefault(key, f"label {number}")
        else:
            read()
    while read():
        pass
    assert times == Counter(float(key) for key in predicted)
    assert pairs == Counter((float(key), label) for key, label in labels.items() if key in predicted)
