-- sql/list_appended_events.sql
-- What stands at some positions, to find out whether a commit whose answer was lost has happened.
SELECT stream_id, stream_version, type, data, recorded_at
FROM events
WHERE position >= %(first)s AND position <= %(last)s
ORDER BY position
