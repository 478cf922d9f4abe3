-- All generations in a read store with the partitions of each in order, as arrays: one row a generation. The database's clock says how
-- much is left of a lease.
SELECT generations.projection, generations.generation, generations.state, generations.index_identity,
       generations.shape, generations.folds, generations.mixed, generations.rolled_back,
       projections.paused_at IS NOT NULL, projections.resumptions, generations.created_at, generations.live_at, generations.retired_at,
       generations.events_per_second,
       (SELECT count(*) FROM parked_keys
        WHERE parked_keys.projection = generations.projection AND parked_keys.generation = generations.generation),
       (SELECT count(retry_requested_at) FROM parked_keys
        WHERE parked_keys.projection = generations.projection AND parked_keys.generation = generations.generation),
       divided.numbers, divided.positions, divided.visible_positions, divided.workers, divided.leased_seconds,
       divided.failures
FROM generations
JOIN projections ON projections.name = generations.projection
CROSS JOIN LATERAL (
    SELECT array_agg(partition ORDER BY partition) AS numbers,
           array_agg(position ORDER BY partition) AS positions,
           array_agg(visible_position ORDER BY partition) AS visible_positions,
           array_agg(worker ORDER BY partition) AS workers,
           array_agg(extract(epoch FROM leased_until - clock_timestamp())::float8 ORDER BY partition) AS leased_seconds,
           array_agg(failure ORDER BY partition) AS failures
    FROM partitions
    WHERE partitions.projection = generations.projection AND partitions.generation = generations.generation
) AS divided
WHERE generations.store = %(store)s
ORDER BY generations.projection, generations.generation
