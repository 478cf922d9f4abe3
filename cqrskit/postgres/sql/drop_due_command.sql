DELETE FROM due_commands WHERE key = %(key)s AND parked_at IS NOT NULL
