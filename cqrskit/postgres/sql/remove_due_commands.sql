-- Rows that a decision is about to take back are left to it: waiting for them, while it waits for us, would be a deadlock.
DELETE FROM due_commands
WHERE id IN (SELECT id FROM due_commands WHERE id = ANY(%(ids)s) FOR UPDATE SKIP LOCKED)
