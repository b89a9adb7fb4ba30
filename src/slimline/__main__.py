"""``python -m slimline`` is the ``slimline`` command."""

from slimline.cli import main

main()
