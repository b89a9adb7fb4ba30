"""The teacher's whole output vector as an embedding of a row, looked at along a few random directions.

Exports give no hidden features. The teacher's raw outputs are the nearest to them that every release serves: of a model
that ends in a linear layer they are a linear image of its last features, so what that layer doesn't see isn't seen here
either. Two distributions of vectors that differ do so along almost every direction (Cuesta-Albertos, Fraiman & Ransford
2007, J. Theoretical Probability 20), so bins along a few of them test all outputs together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Outputs = NDArray[np.float32]

DIRECTIONS = 8
SEED = 0  # the same directions for every monitor of a release, and after a restart


class Projection:
    """Directions drawn for the raw outputs ``reference`` [rows, k], each output in units of its deviation there.

    ``logits``: a row is taken less its mean, which is all the same to softmax: logits and log-probabilities are one.
    Not where each label has a sigmoid of its own: there a common shift is another answer.
    """

    def __init__(self, reference: Outputs, *, logits: bool) -> None:
        self.logits = logits
        width = reference.shape[1]
        drawn = np.random.default_rng(SEED).normal(size=(width, min(DIRECTIONS, width)))
        spread = self._centred(reference).std(0)
        self.directions = np.divide(drawn, spread[:, None], out=np.zeros_like(drawn), where=spread[:, None] > 0)

    def of(self, outputs: Outputs) -> dict[str, NDArray[np.float64]]:
        """Return {``projection.NUMBER``: [rows]} for raw outputs [rows, k]."""
        along = self._centred(outputs) @ self.directions
        return {f"projection.{number}": column for number, column in enumerate(along.T)}

    def _centred(self, outputs: Outputs) -> NDArray[np.float64]:
        values = np.asarray(outputs, np.float64)
        return values - values.mean(1, keepdims=True) if self.logits else values
