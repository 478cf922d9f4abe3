-- Keys that are level again.
DELETE FROM parked_keys
WHERE projection = %(projection)s AND generation = %(generation)s AND key = ANY(%(keys)s::text[])
  AND EXISTS (
    SELECT FROM partitions
    WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s
      AND epoch = %(epoch)s
)
