-- Set a document's key aside; the first failure is the one to look at.
INSERT INTO parked_keys (projection, generation, key, position, error)
VALUES (%(name)s, %(generation)s, %(key)s, %(position)s, %(error)s)
ON CONFLICT (projection, generation, key) DO NOTHING
