-- A retry has come to an event that fails. Only who holds the newest lease may say so.
UPDATE parked_keys
SET position = %(position)s, error = %(error)s, events_waiting = %(waiting)s, retry_requested_at = NULL,
    retried_at = clock_timestamp()
WHERE projection = %(projection)s AND generation = %(generation)s AND key = %(key)s
  AND EXISTS (
    SELECT FROM partitions
    WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s
      AND epoch = %(epoch)s
)
