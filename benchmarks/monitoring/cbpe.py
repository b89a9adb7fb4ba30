"""Run NannyML's CBPE on recorded streams, in .venv/nannyml; print each stream's first alerting row (or -1) as JSON."""

import contextlib
import json
import sys
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")


def frame(probabilities, truth=None):
    """Return the table that CBPE reads: a column a class, the answer, and the truth where it is known."""
    table = pd.DataFrame({f"p{k}": probabilities[:, k] for k in range(probabilities.shape[1])})
    table["answer"] = probabilities.argmax(1).astype(str)
    if truth is not None:
        table["truth"] = truth.astype(str)
    return table


def main(path, chunk):
    """Fit on the reference rows, estimate each stream."""
    with contextlib.redirect_stdout(sys.stderr):
        import nannyml

        with np.load(path) as file:
            arrays = dict(file.items())
        probabilities, truth = arrays["probabilities"], arrays["truth"]
        estimator = nannyml.CBPE(
            problem_type="classification_multiclass", y_pred="answer", y_true="truth", metrics=["accuracy"],
            y_pred_proba={str(k): f"p{k}" for k in range(probabilities.shape[1])}, chunk_size=chunk,
        )  # fmt: skip
        estimator.fit(frame(probabilities / probabilities.sum(1, keepdims=True), truth))
        found = []
        for index in range(sum(name.startswith("stream/") for name in arrays)):
            stream = arrays[f"stream/{index}"]
            result = estimator.estimate(frame(stream / stream.sum(1, keepdims=True)))
            table = result.filter(period="analysis").to_df()
            ends = table[("chunk", "end_index")].to_numpy()
            alerts = np.flatnonzero(table[("accuracy", "alert")].to_numpy(bool))
            found.append(int(ends[alerts[0]]) if len(alerts) else -1)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
