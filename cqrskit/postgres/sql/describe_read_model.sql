-- The comment on a read model's table tells which documents it was made for; no row has a null table.
SELECT obj_description(to_regclass(%s), 'pg_class')
