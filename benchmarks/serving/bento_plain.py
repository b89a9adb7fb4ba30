"""A BentoML service as its documentation writes one. ``RELEASE`` names the folder, ``BATCHABLE=1`` its batching."""

import json
import os
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType

from slimline.predictor import Predictor

RELEASE = Path(os.environ["RELEASE"])
LAST = json.loads((RELEASE / "card.json").read_text())["last"]
(SPEC,) = json.loads((RELEASE / "chain" / LAST / "signature.json").read_text())["inputs"]


@bentoml.service(workers=1, traffic={"timeout": 60})
class Plain:
    """Answers arrays with probabilities."""

    def __init__(self) -> None:
        self.predictor = Predictor(RELEASE, threads=1)

    @bentoml.api(batchable=os.environ.get("BATCHABLE") == "1")
    def predict(self, inputs: Annotated[np.ndarray, DType(SPEC["dtype"])]) -> Annotated[np.ndarray, DType("float32")]:
        """Return one row of probabilities for each row of inputs."""
        logits = next(iter(self.predictor.runtime.run({SPEC["name"]: inputs}).values()))
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return odds / odds.sum(-1, keepdims=True)
