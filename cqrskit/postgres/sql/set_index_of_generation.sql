-- The index that a generation's documents are in; a row comes back if it is another one than before.
UPDATE generations SET index_identity = %(identity)s
WHERE projection = %(projection)s AND generation = %(generation)s AND index_identity <> %(identity)s
RETURNING generation
