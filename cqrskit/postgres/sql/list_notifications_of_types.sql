-- sql/list_notifications_of_types.sql
-- Events of some types between two positions, in the log's order.
SELECT position, stream_id, stream_version, type, data
FROM events
WHERE position >= %(first)s AND position <= %(last)s AND type = ANY(%(types)s)
ORDER BY position
LIMIT %(limit)s
