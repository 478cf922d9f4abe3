-- All documents of a generation are what this code would have made; those with other fields never are.
UPDATE generations SET folds = %(folds)s, mixed = false
WHERE projection = %(projection)s AND generation = %(generation)s AND shape = %(shape)s
RETURNING generation
