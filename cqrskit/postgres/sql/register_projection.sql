-- Make the checkpoint if it is new; the empty update returns the row that is there already.
INSERT INTO projections (name, generation) VALUES (%(name)s, %(generation)s)
ON CONFLICT (name, generation) DO UPDATE SET name = excluded.name
RETURNING position, visible_position
