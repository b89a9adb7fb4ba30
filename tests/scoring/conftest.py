"""A release, images in a folder, and what the Predictor answers to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from slimline import preprocess
from slimline.answers import Answers
from slimline.predictor import Predictor


@pytest.fixture(scope="session")
def release(two_releases: tuple[Path, Path]) -> Path:
    return two_releases[0]


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (150, 8, 8), np.uint8)


@pytest.fixture(scope="session")
def folder(pixels: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "inner").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(root / ("inner" if index % 2 else "") / f"{index:03}.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="session")
def expected(release: Path, pixels: NDArray[np.uint8]) -> tuple[list[str], NDArray[np.float32]]:
    """What the Predictor answers to the images, by index."""
    document = json.loads((release / "chain" / "distill" / "preprocess.json").read_text())
    predictor = Predictor(release)
    answers = Answers(predictor.signature)
    labels, probabilities = answers.of(predictor.predict(preprocess.run(document, list(pixels))))
    predictor.close()
    assert labels is not None
    return labels, probabilities
