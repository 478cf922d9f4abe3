-- Keep aggregates as they are now. Of two processes the one that is further wins, whoever is later.
INSERT INTO snapshots AS kept (stream_id, stream_version, position, shape, state)
SELECT * FROM unnest(
    %(stream_ids)s::uuid[], %(stream_versions)s::integer[], %(positions)s::bigint[], %(shapes)s::text[],
    %(states)s::bytea[]
)
ON CONFLICT (stream_id) DO UPDATE
SET stream_version = excluded.stream_version, position = excluded.position, shape = excluded.shape,
    state = excluded.state
WHERE excluded.stream_version > kept.stream_version OR excluded.shape <> kept.shape
