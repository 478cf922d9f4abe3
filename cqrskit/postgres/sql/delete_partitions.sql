-- Divide a generation anew: what is returned is where its partitions stood. Who held one of them has lost it.
DELETE FROM partitions
WHERE projection = %(projection)s AND generation = %(generation)s
RETURNING position, visible_position
