"""Slimline makes trained PyTorch models small and fast, and measures what each step gained and cost."""

__version__ = "0.1.0"
