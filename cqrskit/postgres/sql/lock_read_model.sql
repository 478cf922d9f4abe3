-- One process at a time makes, changes or removes the table or view of this name; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('cqrskit.' || %s::text, 0))
