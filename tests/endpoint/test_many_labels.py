"""Any of several labels: what is answered, and how it is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from slimline.task import Split
from tests.endpoint.conftest import Serve


def test_rows_with_several_labels_and_with_none_are_counted(
    serve: Serve, many_release: Path, splits: dict[str, Split]
) -> None:
    rows: NDArray[np.float32] = splits["validation"].inputs["image"][:60]
    client = serve(release=many_release)
    said = [
        each["label"]
        for each in client.post("/predict", json={"inputs": {"image": rows.tolist()}}).json()["predictions"]
    ]
    assert "" in said
    assert any("," in each for each in said)
    families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    family = families["slimline_predictions"]
    counted = {each.labels["label"]: each.value for each in family.samples if each.name.endswith("_total")}
    expected = Counter(label for each in said for label in each.split(","))
    assert {label: count for label, count in counted.items() if count} == expected
    assert len(counted) == 11
    assert "several counts for each" in family.documentation


def test_none_is_no_label_of_a_task_of_one_each(serve: Serve) -> None:
    families = {each.name: each for each in text_string_to_metric_families(serve().get("/metrics").text)}
    assert "" not in {each.labels["label"] for each in families["slimline_predictions"].samples}
