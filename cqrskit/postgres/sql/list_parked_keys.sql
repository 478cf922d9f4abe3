-- The keys of a generation that wait for somebody to look at them.
SELECT key, position, error, owner, events_waiting, parked_at, retry_requested_at IS NOT NULL FROM parked_keys
WHERE projection = %(projection)s AND generation = %(generation)s
ORDER BY position, key
