-- Other code than the one that began it folds into a generation.
UPDATE generations SET mixed = true
WHERE projection = %(projection)s AND generation = %(generation)s AND NOT mixed
