SELECT count(*) FILTER (WHERE parked_at IS NULL), count(*) FILTER (WHERE parked_at IS NOT NULL),
       min(due_at) FILTER (WHERE parked_at IS NULL)
FROM due_commands
