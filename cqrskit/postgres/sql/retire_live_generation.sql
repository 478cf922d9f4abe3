-- The live generation is kept, but no longer read.
UPDATE generations SET state = 'retired', retired_at = now(), rolled_back = %(rolled_back)s
WHERE projection = %(projection)s AND store = %(store)s AND state = 'live'
RETURNING generation
