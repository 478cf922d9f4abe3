-- The event log: one head row that gives out dense positions, and rows that nobody can change.

CREATE TABLE log_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO log_head (position) VALUES (0);

CREATE TABLE events (
    position bigint NOT NULL,
    stream_id uuid NOT NULL,
    stream_version integer NOT NULL CHECK (stream_version > 0),
    type text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    metadata bytea NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT events_position_key PRIMARY KEY (position),
    CONSTRAINT events_stream_version_key UNIQUE (stream_id, stream_version)
);

COMMENT ON TABLE events IS 'Append-only. data and metadata are UTF-8 JSON; the view events_json shows them to people.';

CREATE FUNCTION refuse_change_of_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER events_are_never_changed
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_log();

CREATE VIEW events_json AS
    SELECT position, stream_id, stream_version, type,
           convert_from(data, 'UTF8')::json AS data,
           convert_from(metadata, 'UTF8')::json AS metadata,
           recorded_at
    FROM events;
