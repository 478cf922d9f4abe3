-- Hold the checkpoints of a projection's live generation and of another one, and say where they stand.
SELECT generations.generation, generations.state, partitions.position, partitions.visible_position
FROM partitions
JOIN generations USING (projection, generation)
WHERE generations.projection = %(projection)s AND generations.store = %(store)s
  AND (generations.state = 'live' OR generations.generation = %(generation)s)
ORDER BY partitions.generation, partitions.partition
FOR UPDATE OF partitions
