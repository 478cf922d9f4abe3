-- An event that every fold is to pass over for one document, as long as that document is parked at this event. A row
-- comes back also where the event was given up before.
INSERT INTO skipped_events (projection, key, position, error)
SELECT projection, key, position, error
FROM parked_keys
WHERE projection = %(projection)s AND generation = %(generation)s AND key = %(key)s AND position = %(position)s
FOR UPDATE
ON CONFLICT (projection, key, position) DO UPDATE SET error = skipped_events.error
RETURNING position
