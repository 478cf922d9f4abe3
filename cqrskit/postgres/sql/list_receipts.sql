-- Receipts by key, a page after the other: they are far too many to be read at once.
SELECT key, command, outcome, position, recorded_at
FROM command_receipts
WHERE key > %(after)s
ORDER BY key LIMIT %(count)s
