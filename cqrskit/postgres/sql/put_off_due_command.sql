-- Try it again later, or park it. Nothing happens if something else was stored under its key meanwhile.
UPDATE due_commands
SET attempts = %(attempts)s, run_at = %(run_at)s, error = %(error)s, leased_until = NULL,
    parked_at = CASE WHEN %(park)s THEN clock_timestamp() END
WHERE id = %(id)s
