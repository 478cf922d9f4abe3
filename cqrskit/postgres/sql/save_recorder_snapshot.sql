-- sql/save_recorder_snapshot.sql
-- A snapshot of the eventsourcing library; a second one of the same version is refused by the key.
INSERT INTO recorder_snapshots (originator_id, originator_version, topic, state)
VALUES (%(stream_id)s, %(version)s, %(topic)s, %(state)s)
