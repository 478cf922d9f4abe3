-- Store the due commands of a batch and take others back. What is stored under a key that is taken is a new command,
-- with a new id: whoever runs the old one removes nothing, and its receipt is not the new one's.
WITH taken_back AS (
    DELETE FROM due_commands WHERE key = ANY(%(taken_back)s::text[])
)
INSERT INTO due_commands (key, due_at, run_at, command, content, metadata)
SELECT new.key, new.due_at, new.due_at, new.command, new.content, new.metadata
FROM unnest(
    %(keys)s::text[], %(due_at)s::timestamptz[], %(commands)s::text[], %(contents)s::bytea[], %(metadata)s::bytea[]
) AS new (key, due_at, command, content, metadata)
ON CONFLICT (key) DO UPDATE
SET id = DEFAULT, due_at = excluded.due_at, run_at = excluded.run_at, command = excluded.command,
    content = excluded.content, metadata = excluded.metadata, attempts = 0, leased_until = NULL, error = NULL,
    parked_at = NULL
