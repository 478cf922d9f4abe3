-- A generation that begins again has nothing parked.
DELETE FROM parked_keys WHERE projection = %(projection)s AND generation = %(generation)s
