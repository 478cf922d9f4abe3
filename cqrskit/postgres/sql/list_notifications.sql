-- sql/list_notifications.sql
-- Events between two positions, in the log's order.
SELECT position, stream_id, stream_version, type, data
FROM events
WHERE position >= %(first)s AND position <= %(last)s
ORDER BY position
LIMIT %(limit)s
