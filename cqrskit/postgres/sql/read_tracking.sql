-- sql/read_tracking.sql
-- How far a follower has come.
SELECT notification_id
FROM recorder_tracking
WHERE follower = %(follower)s AND application_name = %(application_name)s
