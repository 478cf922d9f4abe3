-- Leases that are still their holder's, although their time may be up, go on.
UPDATE partitions SET leased_until = clock_timestamp() + make_interval(secs => %(seconds)s)
FROM unnest(%(projections)s::text[], %(generations)s::integer[], %(partitions)s::integer[], %(epochs)s::bigint[])
    WITH ORDINALITY AS held (projection, generation, partition, epoch, place)
WHERE partitions.projection = held.projection AND partitions.generation = held.generation
  AND partitions.partition = held.partition AND partitions.epoch = held.epoch
RETURNING held.place
