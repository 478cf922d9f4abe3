-- Set documents' keys aside; the first failure of each is the one to look at. Only who holds the newest lease may.
INSERT INTO parked_keys (projection, generation, key, position, error, events_waiting)
SELECT %(projection)s, %(generation)s, failed.key, failed.position, failed.error, failed.waiting
FROM unnest(%(keys)s::text[], %(positions)s::bigint[], %(errors)s::text[], %(waiting)s::bigint[])
    AS failed (key, position, error, waiting)
WHERE EXISTS (
    SELECT FROM partitions
    WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s
      AND epoch = %(epoch)s
)
ON CONFLICT (projection, generation, key) DO NOTHING
