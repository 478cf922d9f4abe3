-- Give partitions back; the epoch stays, so that whoever takes one next has a higher one.
UPDATE partitions SET worker = NULL, leased_until = NULL
FROM unnest(%(projections)s::text[], %(generations)s::integer[], %(partitions)s::integer[], %(epochs)s::bigint[])
    AS held (projection, generation, partition, epoch)
WHERE partitions.projection = held.projection AND partitions.generation = held.generation
  AND partitions.partition = held.partition AND partitions.epoch = held.epoch
