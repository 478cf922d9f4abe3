-- All documents of a generation are what this code would have made.
UPDATE generations SET shape = %(shape)s, folds = %(folds)s, mixed = false
WHERE projection = %(projection)s AND generation = %(generation)s
