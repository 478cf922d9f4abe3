-- One process at a time makes read-model tables; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtext('cqrskit.read_models'))
