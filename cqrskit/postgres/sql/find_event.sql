-- One event by its place in its stream, to see whether a batch whose answer was lost is there.
SELECT position, data, metadata, recorded_at FROM events
WHERE stream_id = %(stream_id)s AND stream_version = %(stream_version)s
