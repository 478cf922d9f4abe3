-- All events of many streams at once; the unique index on stream and version serves both filter and order.
SELECT position, stream_id, stream_version, type, data, metadata, recorded_at
FROM events
WHERE stream_id = ANY(%(stream_ids)s)
ORDER BY stream_id, stream_version
