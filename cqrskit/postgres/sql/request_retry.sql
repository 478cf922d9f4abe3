-- Somebody has mended what these keys were parked for; whoever holds their partition tries them again.
UPDATE parked_keys SET retry_requested_at = clock_timestamp()
WHERE projection = %(projection)s AND generation = %(generation)s
  AND (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s::text[]))
