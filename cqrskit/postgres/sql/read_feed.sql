-- One block of the feed. Positions are dense, so a block is a range of positions, and a reader that wants few
-- types still knows how far it has looked.
SELECT position, stream_id, stream_version, type, data, metadata, recorded_at
FROM events
WHERE position > %(after)s AND position <= %(until)s
ORDER BY position
