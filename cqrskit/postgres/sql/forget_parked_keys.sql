-- A projection that begins again has nothing set aside.
DELETE FROM parked_keys WHERE projection = %(name)s AND generation = %(generation)s
