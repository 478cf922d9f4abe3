-- Positions only grow. Who holds an older lease changes nothing: no row comes back.
UPDATE partitions
SET position = GREATEST(position, %(position)s),
    visible_position = GREATEST(visible_position, %(visible)s),
    updated_at = now()
WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s AND epoch = %(epoch)s
RETURNING epoch
