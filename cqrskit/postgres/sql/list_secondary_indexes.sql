-- The indexes of a read model's table that only searches need: all but the one of its key.
SELECT pg_namespace.nspname, pg_class.relname
FROM pg_index
JOIN pg_class ON pg_class.oid = pg_index.indexrelid
JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
WHERE pg_index.indrelid = to_regclass(%s) AND NOT pg_index.indisprimary
