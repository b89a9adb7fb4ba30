"""Write data/fashion-mnist/{train,test}.npz from the idx files of Debian's package dataset-fashion-mnist.

    apt-get install dataset-fashion-mnist && python data/make_fashion_mnist.py /usr/share/datasets/fashion-mnist

The draw is fixed: 1,200 training images of each class by numpy's default_rng(0), and the whole test set.
"""

import sys
from pathlib import Path

import numpy as np

from slimline.tasks.fashion_mnist import IDX, read_idx

PER_CLASS = 1200
HERE = Path(__file__).parent / "fashion-mnist"


def main(source: Path) -> None:
    """Read the full data set from ``source`` and write both compressed files."""
    images, labels = (read_idx(source / name) for name in IDX["train"])
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.flatnonzero(labels == label), PER_CLASS, replace=False) for label in range(10)]
    rows = np.sort(np.concatenate(drawn))
    np.savez_compressed(HERE / "train.npz", images=images[rows], labels=labels[rows])
    images, labels = (read_idx(source / name) for name in IDX["test"])
    np.savez_compressed(HERE / "test.npz", images=images, labels=labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
