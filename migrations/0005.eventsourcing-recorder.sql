-- What cqrskit.postgres.recorder needs, through which applications of the eventsourcing library use this log.

-- The library lets a stream begin at version 0, ours begin at 1. Every row satisfies the old, narrower rule, so the
-- new one need not be checked against them (NOT VALID); it is enforced for each new row all the same.
SET LOCAL lock_timeout = '5s';

ALTER TABLE events
    DROP CONSTRAINT events_stream_version_check,
    ADD CONSTRAINT events_stream_version_check CHECK (stream_version >= 0) NOT VALID;

-- The library may compress or encrypt what it stores. The view must show the rows beside such a row, not fail.
CREATE FUNCTION json_or_null(content bytea) RETURNS json LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(content, 'UTF8')::json;
EXCEPTION
    WHEN character_not_in_repertoire OR untranslatable_character OR invalid_text_representation THEN
        RETURN NULL;
END
$$;

CREATE OR REPLACE VIEW events_json AS
    SELECT position, stream_id, stream_version, type,
           json_or_null(data) AS data,
           json_or_null(metadata) AS metadata,
           recorded_at
    FROM events;

COMMENT ON VIEW events_json IS 'The log for people. data is NULL where it is not JSON: compressed or encrypted.';
COMMENT ON TABLE events IS
    'Append-only. data and metadata are UTF-8 JSON, but for data that the eventsourcing library compressed or '
    'encrypted; the view events_json shows them to people.';

CREATE TABLE recorder_snapshots (
    originator_id uuid NOT NULL,
    originator_version integer NOT NULL CHECK (originator_version >= 0),
    topic text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);

COMMENT ON TABLE recorder_snapshots IS 'The eventsourcing library''s own snapshots; the executor has its own table.';

CREATE TABLE recorder_tracking (
    follower text COLLATE "C" NOT NULL,
    application_name text COLLATE "C" NOT NULL,
    notification_id bigint NOT NULL,
    PRIMARY KEY (follower, application_name)
);

COMMENT ON TABLE recorder_tracking IS 'How far a follower of the eventsourcing library has processed an application.';
