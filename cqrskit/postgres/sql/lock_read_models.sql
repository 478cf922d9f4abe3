-- One process at a time makes the schema of the read models; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('cqrskit.read_models', 0))
