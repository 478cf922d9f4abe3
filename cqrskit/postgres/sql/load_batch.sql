-- All that deciding a batch of commands needs, in one round trip: receipts of its keys, newer snapshots of its streams,
-- and the events after those (or after the versions that are in memory), each stream's in their order. `kind` tells the
-- rows apart. Sorting all of them in the end would spill to disk; an event out of order would not apply, loudly.
WITH wanted AS (
    SELECT given.stream_id, given.stream_version AS known_version,
           kept.stream_version, kept.position, kept.shape, kept.state
    FROM unnest(%(stream_ids)s::uuid[], %(stream_versions)s::integer[]) AS given (stream_id, stream_version)
    LEFT JOIN snapshots AS kept
        ON kept.stream_id = given.stream_id AND kept.stream_version > given.stream_version
        AND kept.shape = ANY(%(shapes)s)
)
SELECT 0 AS kind, position, NULL::uuid AS stream_id, 0 AS stream_version, key AS type, command AS data,
       outcome AS metadata, recorded_at
FROM command_receipts
WHERE key = ANY(%(keys)s)
UNION ALL
SELECT 1, position, stream_id, stream_version, shape, state, ''::bytea, now()
FROM wanted
WHERE state IS NOT NULL
UNION ALL
SELECT 2, newer.position, newer.stream_id, newer.stream_version, newer.type, newer.data, newer.metadata,
       newer.recorded_at
FROM wanted
CROSS JOIN LATERAL (
    SELECT * FROM events
    WHERE events.stream_id = wanted.stream_id
    AND events.stream_version > coalesce(wanted.stream_version, wanted.known_version)
    ORDER BY events.stream_version
) AS newer
