"""A sample plug-in for Slimline; its entry points stand in pyproject.toml."""
