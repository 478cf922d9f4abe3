-- The events that were given up, each for one document.
SELECT key, position, error FROM skipped_events WHERE projection = %(projection)s ORDER BY position, key
