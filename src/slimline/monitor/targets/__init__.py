"""Where traffic is moved when a release is undone: plug-ins of the group ``slimline.targets``."""
