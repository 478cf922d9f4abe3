-- Store a block's commands and move the checkpoint, if it is where the reader thought. Of workers that read the same
-- block one does this, and the others store nothing.
WITH moved AS (
    UPDATE reactions SET position = %(until)s WHERE name = %(name)s AND position = %(after)s RETURNING name
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
