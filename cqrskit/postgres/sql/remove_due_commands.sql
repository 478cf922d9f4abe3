DELETE FROM due_commands WHERE id = ANY(%(ids)s)
