"""What a task's data give up without a neural network: TF-IDF and a linear SVM, so that one knows when that is enough.

TF-IDF of words and pairs of words, weighed by 1 + log of their count, and a support vector machine a class against the
rest (Joachims 1998, Text Categorization with Support Vector Machines). Where texts have no spaces between words
(Chinese, Japanese, Thai) it is of one to three letters in a row (Zhang and LeCun 2017, Which Encoding is the Best for
Text Classification in Chinese, English, Japanese and Korean?).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from slimline.task import Task

TFIDF_SVM = "TF-IDF + linear SVM"
ROWS = 50_000  # more training rows cost minutes and change little
TIMED = 200
RECUR = 0.25  # the share of letters in words that recur below which spaces don't part words
TERMS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "letters": {"analyzer": "char", "ngram_range": (1, 3)},
}


@dataclass(frozen=True)
class Baseline:
    """Answers (a class a test row), the bytes of its numbers and words, and the median milliseconds of one text."""

    answers: NDArray[np.int64]
    bytes: int
    latency_ms: float


def tfidf_svm(train: Sequence[str], y: NDArray[np.int64], test: Sequence[str], seed: int = 0) -> Baseline:
    """Fit on training texts and answer the test texts; of too many training rows a random ``ROWS`` are taken."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    if len(train) > ROWS:
        rows = np.random.default_rng(seed).choice(len(train), ROWS, replace=False)
        train, y = [train[row] for row in rows], y[rows]
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32, **TERMS[terms(train)])
    model = LinearSVC(random_state=seed).fit(vectors.fit_transform(train), y)
    answers = np.asarray(model.predict(vectors.transform(test)), np.int64)
    seconds = []
    for text in test[:TIMED]:
        start = perf_counter()
        model.predict(vectors.transform([text]))
        seconds.append(perf_counter() - start)
    words = sum(len(word.encode()) + 4 for word in vectors.vocabulary_)
    held = 4 * (model.coef_.size + model.intercept_.size + len(vectors.vocabulary_))  # as float32, with one idf a word
    return Baseline(answers, words + held, float(np.median(seconds) * 1e3))


def terms(texts: Sequence[str]) -> str:
    """Return ``words``, or ``letters`` where what stands between spaces hardly stands in a second text too."""
    held: Counter[str] = Counter(piece for text in texts for piece in set(text.lower().split()))
    total = sum(count * len(piece) for piece, count in held.items())
    again = sum(count * len(piece) for piece, count in held.items() if count > 1)
    return "words" if again >= RECUR * total else "letters"


def measured(task: Task, limit: int | None = None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the task's simpler models, and notes: where one fails it is left out, since the networks are done.

    ``limit`` is the most rows of a split that networks see.
    """
    try:
        return task.baselines(limit), []
    except Exception as error:  # noqa: BLE001  (a library's, or a plug-in's)
        return {}, [f"no simpler model beside the networks: {' '.join(str(error).split())}"]
