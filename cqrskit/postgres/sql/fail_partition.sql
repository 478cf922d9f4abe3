-- Why a partition cannot go on, for those who look after it; NULL when it can.
UPDATE partitions SET failure = %(failure)s
WHERE projection = %(projection)s AND generation = %(generation)s AND partition = %(partition)s AND epoch = %(epoch)s
