-- Take a partition that nobody holds. The new epoch shuts out whoever held it before.
UPDATE partitions
SET worker = %(worker)s, failure = NULL, epoch = nextval('lease_epochs'),
    leased_until = clock_timestamp() + make_interval(secs => %(seconds)s)
FROM generations
WHERE partitions.projection = %(projection)s AND partitions.generation = %(generation)s
  AND partitions.partition = %(partition)s AND (leased_until IS NULL OR leased_until < clock_timestamp())
  AND generations.projection = partitions.projection AND generations.generation = partitions.generation
RETURNING epoch, position, visible_position, index_identity,
          (SELECT count(*) FROM partitions AS all_of_them
           WHERE all_of_them.projection = %(projection)s AND all_of_them.generation = %(generation)s)
