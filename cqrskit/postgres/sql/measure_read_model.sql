-- The room on disk of a read model's table with its indexes; null if there is no such table.
SELECT pg_total_relation_size(to_regclass(%s))
