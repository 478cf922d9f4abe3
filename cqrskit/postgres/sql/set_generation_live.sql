-- From now on readers are answered from this generation.
UPDATE generations SET state = 'live', live_at = now(), retired_at = NULL, rolled_back = false
WHERE projection = %(projection)s AND generation = %(generation)s
