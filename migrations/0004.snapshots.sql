-- Aggregates as they were at some version, so that long streams load quickly. They can be deleted at any time.

CREATE TABLE snapshots (
    stream_id uuid NOT NULL,
    stream_version integer NOT NULL CHECK (stream_version > 0),
    position bigint NOT NULL,
    shape text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    CONSTRAINT snapshots_stream_key PRIMARY KEY (stream_id)
);

COMMENT ON COLUMN snapshots.shape IS 'Fingerprint of the aggregate class'' attributes; another shape is ignored, not trusted.';
