-- An event that every fold is to pass over for one document.
INSERT INTO skipped_events (projection, key, position, error)
VALUES (%(projection)s, %(key)s, %(position)s, %(error)s)
ON CONFLICT (projection, key, position) DO NOTHING
