-- Store a block's commands and move the checkpoints of these types, if all are where the reader thought. Of workers that
-- read the same block one does this, and the others store nothing.
WITH moved AS (
    UPDATE reactions
    SET positions = positions
            || (SELECT jsonb_object_agg(type, %(until)s::bigint) FROM unnest(%(types)s::text[]) AS read (type)),
        position = greatest(position, %(until)s)
    WHERE name = %(name)s
      AND positions @> (SELECT jsonb_object_agg(type, %(after)s::bigint) FROM unnest(%(types)s::text[]) AS read (type))
    RETURNING name
), stored AS (
    INSERT INTO due_commands (key, due_at, run_at, command, content, metadata, error, parked_at)
    SELECT new.key, %(now)s, %(now)s, new.command, new.content, new.metadata, new.error,
           CASE WHEN new.error IS NOT NULL THEN clock_timestamp() END
    FROM moved, unnest(
        %(keys)s::text[], %(commands)s::text[], %(contents)s::bytea[], %(metadata)s::bytea[], %(errors)s::text[]
    ) AS new (key, command, content, metadata, error)
    ON CONFLICT (key) DO NOTHING
)
SELECT count(*) FROM moved
