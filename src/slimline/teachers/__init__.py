"""Teachers that exist: weights that were trained elsewhere, and whether they know the task."""
