UPDATE due_commands SET attempts = 0, run_at = due_at, parked_at = NULL, leased_until = NULL
WHERE key = %(key)s AND parked_at IS NOT NULL
