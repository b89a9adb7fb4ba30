"""What networks of timm and of torchvision have in common here: built by name, weights taken once, by the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline.errors import ArtifactError, ParamsError

PRETRAINED = "pretrained"
IMAGENET = 1000  # classes
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = ("pretrained*", "weights*", "checkpoint_path", "cache_dir")  # arguments that open files or fetch them
Fetch = Callable[[], Mapping[str, Tensor]]


def check_args(name: str, args: Iterable[str]) -> None:
    """Raise ParamsError at an argument by which weights would come in: an artifact's own would open any file."""
    for key in args:
        if any(fnmatchcase(key, pattern) for pattern in WEIGHTS):
            raise ParamsError(
                f"{name}: args.{key}: weights are the teacher's: write teacher.weights: a file, or pretrained"
            )


class LibraryModel(nn.Module):
    """A network of a library, ``body``: takes images N × channels × H × W (float32), gives N × classes.

    ``fresh`` returns the names of tensors that the library's weights don't cover: a classifier's for other classes.
    ``fetch`` returns the library's weights for this network, None stands for there being none. ``images`` are the
    ``size``, ``mean`` and ``std`` of the images that they were trained on.
    """

    def __init__(
        self, body: nn.Module, fresh: Callable[[], list[str]], fetch: Fetch | None, images: Mapping[str, list[Any]]
    ) -> None:
        super().__init__()
        self.body = body
        self.images = images
        self._fresh, self._fetch = fresh, fetch

    @property
    def has_weights(self) -> bool:
        """Whether the library has weights for this network."""
        return self._fetch is not None

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.body(image))

    def lacks(self, source: str) -> list[str]:
        """Return the names that ``load_pretrained`` will have no tensors for, without fetching anything.

        Raises ArtifactError where there are no such weights.
        """
        if source != PRETRAINED:
            raise ArtifactError(f"{source}: no such file; '{PRETRAINED}' takes the library's own weights")
        if self._fetch is None:
            raise ArtifactError(f"{source}: the library has no weights for this network; give a file, or train it")
        return [f"body.{name}" for name in self._fresh()]

    @torch.no_grad()
    def load_pretrained(self, source: str) -> list[str]:
        """Take the library's weights (``source: pretrained``) and return the names that there are none for.

        Raises ArtifactError where they can't be fetched or don't fit.
        """
        lost = self.lacks(source)
        assert self._fetch is not None  # noqa: S101  (lacks has seen it)
        try:
            given = {name: tensor for name, tensor in self._fetch().items() if f"body.{name}" not in lost}
            self.body.load_state_dict({**self.body.state_dict(), **given})
        except Exception as error:  # offline, a wrong digest, other shapes: libraries raise many kinds
            raise ArtifactError(f"{source}: {' '.join(str(error).split())[:300]}") from error
        return lost
