"""``python -m example_ledger`` is ``ledger``."""

from example_ledger.cli import main

if __name__ == "__main__":
    main()
