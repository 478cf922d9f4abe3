-- Streams that got events after a position, one more than the limit at most, so that the caller sees "too many".
SELECT DISTINCT stream_id
FROM (SELECT stream_id FROM events WHERE position > %(after)s ORDER BY position LIMIT %(limit)s) AS newer
