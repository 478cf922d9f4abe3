-- How many partitions a generation has.
SELECT count(*) FROM partitions WHERE projection = %(projection)s AND generation = %(generation)s
