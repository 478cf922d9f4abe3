-- sql/advance_tracking.sql
-- Record how far a follower has come; no row comes back if it was there already.
INSERT INTO recorder_tracking AS tracking (follower, application_name, notification_id)
VALUES (%(follower)s, %(application_name)s, %(notification_id)s)
ON CONFLICT (follower, application_name) DO UPDATE SET notification_id = excluded.notification_id
WHERE tracking.notification_id < excluded.notification_id
RETURNING notification_id
