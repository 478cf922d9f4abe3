-- sql/list_recorder_snapshots_backwards.sql
-- One aggregate's snapshots between two versions, the newest first; no limit is NULL.
SELECT originator_id, originator_version, topic, state
FROM recorder_snapshots
WHERE originator_id = %(stream_id)s AND originator_version > %(after)s AND originator_version <= %(until)s
ORDER BY originator_version DESC
LIMIT %(limit)s
