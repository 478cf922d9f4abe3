"""``python -m cqrskit``: the same as the console script."""

from cqrskit.cli import main

main()
