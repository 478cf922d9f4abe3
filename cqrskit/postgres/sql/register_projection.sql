-- Make a projection known, and hold its row, so that one process at a time makes and swaps its generations.
INSERT INTO projections (name) VALUES (%(projection)s)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
