-- Events that parked keys missed, for those who look after them.
UPDATE parked_keys
SET events_skipped = events_skipped + skipped.count
FROM unnest(%(keys)s::text[], %(counts)s::bigint[]) AS skipped (key, count)
WHERE projection = %(name)s AND generation = %(generation)s AND parked_keys.key = skipped.key
