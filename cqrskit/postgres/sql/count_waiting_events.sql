-- Events that wait behind parked keys. Only who holds the newest lease may count them.
UPDATE parked_keys
SET events_waiting = events_waiting + waiting.count
FROM unnest(%(keys)s::text[], %(counts)s::bigint[]) AS waiting (key, count)
WHERE projection = %(projection)s AND generation = %(generation)s AND parked_keys.key = waiting.key
  AND EXISTS (
    SELECT FROM partitions
    WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s
      AND epoch = %(epoch)s
)
