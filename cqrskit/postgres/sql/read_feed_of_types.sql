-- One block of the feed, only some types; see read_feed.sql.
SELECT position, stream_id, stream_version, type, data, metadata, recorded_at
FROM events
WHERE position > %(after)s AND position <= %(until)s AND type = ANY(%(types)s)
ORDER BY position
