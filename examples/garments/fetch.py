"""Write Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747) as DIR/garments.zip: SPLIT/CLASS/NUMBER.png.

The images are those of Debian's package dataset-fashion-mnist. Where it isn't installed it is downloaded and unpacked,
which needs apt but no root. They are under the MIT licence.
"""

import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from PIL import Image

from slimline.tasks.fashion_mnist import IDX, FashionMnist, read_idx

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
ROWS = {"train": 60_000, "test": 10_000}


def main(target: Path) -> None:
    """Write the archive, unless it is there."""
    archive = target / "garments.zip"
    if archive.is_file():
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = INSTALLED if INSTALLED.is_dir() else unpacked(Path(scratch))
        half = archive.with_suffix(".tmp")
        with zipfile.ZipFile(half, "w") as file:  # stored: PNG is compressed already
            for part, expected in ROWS.items():
                images, labels = (read_idx(source / name) for name in IDX[part])
                if len(images) != expected or len(labels) != expected:
                    sys.exit(f"{source}: {part}: {len(images)} images, {len(labels)} labels; {expected} were expected")
                for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                    content = io.BytesIO()
                    Image.fromarray(pixels).save(content, "png")
                    name = FashionMnist.labels[label].replace("/", " or ")
                    file.writestr(zipfile.ZipInfo(f"{part}/{name}/{number:05}.png"), content.getvalue())
        half.replace(archive)


def unpacked(scratch: Path) -> Path:
    """Download Debian's package into ``scratch`` and return the folder of its idx files."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        sys.exit(f"{INSTALLED}: not found; install Debian's {PACKAGE}, or put its four idx.gz files there")
    subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    (package,) = scratch.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(scratch)], check=True)
    return scratch / INSTALLED.relative_to("/")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
