-- Lease commands whose time has come by our clock, the one that handlers see. Several processes take different ones, each
-- only such as its code can run: others may be of newer code, or of another application in this database.
UPDATE due_commands
SET leased_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id IN (
    SELECT id FROM due_commands
    WHERE run_at <= %(now)s AND parked_at IS NULL AND (leased_until IS NULL OR leased_until < clock_timestamp())
      AND command = ANY(%(names)s)
    ORDER BY run_at LIMIT %(count)s FOR UPDATE SKIP LOCKED
)
RETURNING id, key, command, content, metadata, due_at, attempts
