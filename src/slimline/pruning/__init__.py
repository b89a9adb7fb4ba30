"""Pruning: what can go from a model, how much it matters, and slicing to what stays."""
