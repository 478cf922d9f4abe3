-- The tables of read models whose names begin so.
SELECT pg_class.relname
FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
WHERE pg_namespace.nspname = %(schema)s AND pg_class.relkind = 'r' AND starts_with(pg_class.relname, %(beginning)s)
