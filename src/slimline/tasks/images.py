"""Random changes of image batches, each a pure function of uniform draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(images: Tensor, draws: Tensor, most: int) -> Tensor:
    """Shift images N×C×H×W by whole pixels in [−most, most], filling with each image's darkest value.

    ``draws`` is N×2, uniform in [0, 1): rows, then columns.
    """
    count, _, height, width = images.shape
    darkest = images.amin((1, 2, 3), keepdim=True)
    padded = F.pad(images - darkest, (most, most, most, most)) + darkest
    offsets = (draws * (2 * most + 1)).long()
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    index = torch.arange(count)[:, None, None]
    # advanced indices around a slice put the indexed axes first: N×H×W×C
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror the images N×C×H×W whose draw (N, uniform in [0, 1)) is below one half left to right."""
    return torch.where((draws < 0.5)[:, None, None, None], images.flip(-1), images)
