-- Which of these keys something is stored under, parked or not.
SELECT key FROM due_commands WHERE key = ANY(%(keys)s)
