"""The Postgres adapters: event store, feed, checkpoints, read store, migrations."""
