SELECT command, count(*) FROM due_commands WHERE parked_at IS NOT NULL AND command = ANY(%(names)s) GROUP BY command
