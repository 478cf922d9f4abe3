-- The partitions of a generation, all at the same positions.
INSERT INTO partitions (projection, generation, partition, position, visible_position)
SELECT %(projection)s, %(generation)s, number, %(position)s, %(visible)s
FROM generate_series(0, %(count)s - 1) AS number
