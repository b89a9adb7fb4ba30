"""Losses as plug-ins, one file a paper; ``contract`` says what they are called with; params.yaml weighs them."""

from slimline.training.losses.contract import FeatureLoss
from slimline.training.losses.soft import SoftTargets

__all__ = ["FeatureLoss", "SoftTargets"]
