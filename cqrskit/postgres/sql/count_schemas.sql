-- Whether a schema is there: 0 or 1. The catalog is read itself, as a session remembers for a while that a name was not
-- there when it last asked, and CREATE SCHEMA IF NOT EXISTS then fails beside another session that has just made it.
SELECT count(*) FROM pg_namespace WHERE nspname = %s
