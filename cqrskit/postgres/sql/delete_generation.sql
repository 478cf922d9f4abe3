-- Forget a generation, unless it is read, or somebody works on it.
DELETE FROM generations
WHERE projection = %(projection)s AND generation = %(generation)s AND state <> 'live'
  AND NOT EXISTS (
      SELECT FROM partitions
      WHERE partitions.projection = generations.projection AND partitions.generation = generations.generation
        AND leased_until > clock_timestamp()
  )
RETURNING generation
