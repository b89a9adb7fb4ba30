"""Optimizers: which parameters decay, and how far a learned step of a quantizer goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from slimline.params import Training
from slimline.quantization.quantizers import learned_scales

PACE = 3.0


def optimizer(models: Sequence[nn.Module], settings: Training) -> torch.optim.Optimizer:
    """Decay weights only: biases, norms (vectors) and learned steps are left alone.

    AdamW moves every value by about the learning rate, however small its gradient, and a step may be smaller than
    that: there the rate of a quantizer's steps is in proportion to them, PACE times, about what it is for weights of
    their usual size. SGD takes them as they come, since LSQ has scaled their gradients to fit (Esser et al. 2020,
    arXiv:1902.08153, section 2.2).
    """
    scales = [scale for model in models for scale in learned_scales(model)]
    apart = {id(scale) for scale in scales}
    parameters = [p for model in models for p in model.parameters() if p.requires_grad and id(p) not in apart]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        if scales:
            groups.append({"params": scales, "weight_decay": 0.0})
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    for scale in scales:
        step = float(scale.detach().abs().median())
        groups.append({"params": [scale], "weight_decay": 0.0, "lr": PACE * settings.lr * step})
    return torch.optim.AdamW(groups, lr=settings.lr)
