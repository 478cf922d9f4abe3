SELECT id, key, command, due_at, attempts, error, parked_at
FROM due_commands
WHERE parked_at IS NOT NULL OR NOT %(only_parked)s
ORDER BY due_at, id LIMIT %(count)s
