-- sql/list_stream_forwards.sql
-- One stream's events between two versions, the oldest first; no limit is NULL.
SELECT stream_id, stream_version, type, data
FROM events
WHERE stream_id = %(stream_id)s AND stream_version > %(after)s AND stream_version <= %(until)s
ORDER BY stream_version
LIMIT %(limit)s
