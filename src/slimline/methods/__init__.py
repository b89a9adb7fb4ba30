"""Built-in compression methods, one file each, reached through ``plugins.find("methods", name)``."""
