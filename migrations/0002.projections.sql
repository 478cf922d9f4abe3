-- Where each projection stands, and the keys that it had to set aside.

CREATE TABLE projections (
    name text COLLATE "C" NOT NULL,
    generation integer NOT NULL CHECK (generation > 0),
    index_identity text COLLATE "C" NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    visible_position bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation),
    CHECK (visible_position <= position)
);

COMMENT ON COLUMN projections.index_identity IS 'The one index whose documents the positions speak of.';
COMMENT ON COLUMN projections.position IS 'Every event up to here is folded into written documents.';
COMMENT ON COLUMN projections.visible_position IS 'A search sees every event up to here.';

CREATE TABLE parked_keys (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    error text NOT NULL,
    events_skipped bigint NOT NULL DEFAULT 0,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, key)
);
