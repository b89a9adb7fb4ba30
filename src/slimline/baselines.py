"""What a task's data give up without a neural network: TF-IDF and a linear SVM, so that one knows when that is enough.

TF-IDF of words and pairs of words, weighed by 1 + log of their count, and a support vector machine a class against the
rest (Joachims 1998, Text Categorization with Support Vector Machines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

TFIDF_SVM = "TF-IDF + linear SVM"
ROWS = 50_000  # more training rows cost minutes and change little
TIMED = 200


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
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, dtype=np.float32)
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
