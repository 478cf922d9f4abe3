"""A model of the ledger in plain Python, and what is needed to hold the ledger to it."""
