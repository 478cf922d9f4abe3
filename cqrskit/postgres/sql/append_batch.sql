-- Append a whole batch in one statement, so that it costs one round trip and one commit. Taking the head row comes
-- first, by the row's lock: it makes positions dense and commit order equal to position order. With an expected head
-- the update looks again at the row that it waited for, so nothing is written if somebody else has appended.
WITH head AS (
    UPDATE log_head SET position = position + %(count)s
    WHERE %(expected_head)s::bigint IS NULL OR position = %(expected_head)s
    RETURNING position - %(count)s AS previous
), appended AS (
    INSERT INTO events (position, stream_id, stream_version, type, data, metadata, recorded_at)
    SELECT head.previous + new.place, new.stream_id, new.stream_version, new.type, new.data, new.metadata,
           new.recorded_at
    FROM head, unnest(
        %(stream_ids)s::uuid[], %(stream_versions)s::integer[], %(types)s::text[], %(data)s::bytea[],
        %(metadata)s::bytea[], %(recorded_at)s::timestamptz[]
    ) WITH ORDINALITY AS new (stream_id, stream_version, type, data, metadata, recorded_at, place)
), kept AS (
    INSERT INTO command_receipts (key, command, outcome, position, recorded_at)
    SELECT new.key, new.command, new.outcome, coalesce(new.position, head.previous + new.place), new.recorded_at
    FROM head, unnest(
        %(keys)s::text[], %(commands)s::bytea[], %(outcomes)s::bytea[], %(positions)s::bigint[], %(places)s::integer[],
        %(kept_at)s::timestamptz[]
    ) AS new (key, command, outcome, position, place, recorded_at)
)
SELECT previous FROM head
