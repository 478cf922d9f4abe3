-- The keys of a projection that wait for somebody to look at them.
SELECT key, position, error FROM parked_keys
WHERE projection = %(name)s AND generation = %(generation)s
ORDER BY position
