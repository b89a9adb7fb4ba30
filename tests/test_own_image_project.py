"""``slimline init --model --data`` on images: recipes, and the size that images are brought to."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor, nn

from slimline import pipeline
from slimline.errors import ParamsError
from slimline.project import image_params, own_data
from tests.encoders import texts, write_table
from tests.own_projects import laid_out, model
from tests.pictures import write_folders, write_zip

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("given", "recipe", "order", "ratio"),
    [
        ("efficientnet-lite", "int8", ["teacher", "quantize"], None),
        ("efficientnet-lite", "small", ["teacher", "prune", "quantize"], 0.4),
        ("efficientnet-lite", "smallest", ["teacher", "distill", "prune", "quantize"], 0.6),
        ("resnet", "smallest", ["teacher", "prune", "quantize", "factorize"], 0.4),
    ],
)
def test_recipes_for_images_run_what_they_say(
    tmp_path: Path, given: str, recipe: str, order: list[str], ratio: float | None
) -> None:
    document = laid_out(tmp_path, given, write_folders(tmp_path / "pictures", 2), recipe)
    assert pipeline.check_order(document) == order
    assert ratio is None or document["prune"]["methods"][0]["ratio"] == ratio
    assert ("keep" in document["distill"]) == (given == "efficientnet-lite")
    assert document["quantize"]["methods"][0]["skip"] == (["stem"] if given == "efficientnet-lite" else [])


@pytest.mark.parametrize(("images", "epochs", "after"), [(2_000, 6, 2), (70_000, 3, 2), (1_000_000, 2, 2)])
def test_many_images_are_seen_less_often(images: int, epochs: int, after: int) -> None:
    document = image_params.image_params(
        "efficientnet-lite", own_data.Described(["path"], None, "one", ["a", "b"], images), "smallest", None
    )
    trainings = [document["teacher"]["training"], document["distill"]["training"], document["prune"]["recovery"]]
    assert [each["epochs"] for each in trainings] == [epochs] * 3
    assert document["quantize"]["recovery"]["epochs"] == after


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zip"])
def test_class_folders_make_a_task_of_images(tmp_path: Path, packed: bool) -> None:
    folder = write_folders(tmp_path / "pictures", 2)
    data = write_zip(folder, tmp_path / "all.zip") if packed else folder
    document = laid_out(tmp_path, "efficientnet-lite", data, "small")
    assert document["task"] == {
        "name": "images",
        "args": {"data": data.name, "labels": ["blue", "green", "red"], "size": [64, 64]},
    }  # no column says anything: folders do
    assert pipeline.check_order(document) == ["teacher", "prune", "quantize"]
    with pytest.raises(ParamsError, match="for images take one of efficientnet-lite"):
        laid_out(tmp_path, "bert", data)


def write_photos(root: Path, sizes: list[tuple[int, int]]) -> Path:
    for at, size in enumerate(sizes):
        path = root / ("day", "night")[at % 2] / f"{at}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (at % 256, 0, 0)).save(path)
    return root


@pytest.mark.parametrize(
    ("given", "sizes", "side"),
    [
        ("efficientnet-lite", [(28, 28)] * 8, 64),
        ("efficientnet-lite", [(300, 100)] * 7 + [(2000, 1500)] * 3, 96),
        ("efficientnet-lite", [(640, 480), (480, 640), (1024, 768)] * 4, 224),
        ("resnet", [(640, 480)] * 8, 64),
    ],
)
@pytest.mark.parametrize("kind", ["folders", "zip", "table", "table and zip"])
def test_the_size_is_that_of_the_images(
    tmp_path: Path, given: str, sizes: list[tuple[int, int]], side: int, kind: str
) -> None:
    folder = write_photos(tmp_path / "photos", sizes)
    paths = sorted(folder.rglob("*.jpg"))
    more: dict[str, Any] = {}
    data = folder
    if "zip" in kind:
        data = tmp_path / "photos.zip"
        with zipfile.ZipFile(data, "w") as archive:
            for path in paths:
                archive.write(path, path.relative_to(folder))
    if "table" in kind:
        more = {"archive": data} if "zip" in kind else {}
        data = folder / "list.csv"
        write_table(data, [(path.relative_to(folder), path.parent.name) for path in paths], ("path", "label"))
    assert laid_out(tmp_path, given, data, **more)["task"]["args"]["size"] == [side, side]


def test_the_size_may_be_given(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", [(640, 480)] * 8)
    assert laid_out(tmp_path, "efficientnet-lite", folder, size=(96, 128))["task"]["args"]["size"] == [96, 128]
    with pytest.raises(ParamsError, match="--size: 0 32: height and width in pixels"):
        laid_out(tmp_path, "efficientnet-lite", folder, size=(0, 32))
    with pytest.raises(ParamsError, match="--size: texts don't take it"):
        laid_out(tmp_path, model(tmp_path / "m"), write_table(tmp_path / "t.csv", texts(60)), size=(32, 32))


class Patches(nn.Module):
    """A net for images of one size, as a library's ViT is."""

    def __init__(self, classes: int, img_size: list[int] | int = 224) -> None:
        super().__init__()
        self.side = img_size if isinstance(img_size, int) else img_size[0]
        self.head = nn.Linear(3, classes)
        self.images, self.has_weights = {"size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}, False

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[-1] == self.side, "another size"
        assert self.side % 16 == 0, "no whole patches"
        out: Tensor = self.head(image.mean((2, 3)))
        return out


def test_a_net_that_is_built_for_one_size_is_built_for_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path / "pictures", 20)
    monkeypatch.setattr(image_params.plugins, "find", lambda *_args, **_where: Patches)

    def args(size: tuple[int, int] | None) -> Any:
        return laid_out(tmp_path, "timm:vit", tmp_path / "pictures", size=size)["teacher"]["model"]["args"]

    assert args(None) == {"classes": 3}
    assert args((224, 224)) == {"classes": 3}
    assert args((64, 64)) == {"classes": 3, "img_size": [64, 64]}
    with pytest.raises(ParamsError, match="--size: 50 50: timm:vit can't take images of that size; leave it out"):
        args((50, 50))


def test_a_damaged_image_does_not_keep_the_size_from_being_found(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", [(640, 480)] * 8)
    (folder / "day" / "0.jpg").write_bytes(b"no image")
    assert laid_out(tmp_path, "efficientnet-lite", folder)["task"]["args"]["size"] == [224, 224]
