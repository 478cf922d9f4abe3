-- A projection's documents are kept in generations, each in an index of its own: one is live, others are being built
-- beside it or kept to go back to. Each generation is divided into partitions by the documents' keys; a partition has
-- a checkpoint, and a lease by which one worker at a time moves it. What earlier versions kept about projections speaks
-- of nothing that this version reads: every document is folded again, over the ones that are there, which changes none.

DROP TABLE projections;
DROP TABLE parked_keys;

CREATE TABLE projections (
    name text COLLATE "C" PRIMARY KEY,
    paused_at timestamptz,
    last_generation integer NOT NULL DEFAULT 0
);

COMMENT ON COLUMN projections.paused_at IS 'Since then no worker moves it; NULL while it runs.';
COMMENT ON COLUMN projections.last_generation IS 'The highest number ever given: none is given twice.';

CREATE TABLE generations (
    projection text COLLATE "C" NOT NULL REFERENCES projections (name),
    generation integer NOT NULL CHECK (generation > 0),
    store text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('building', 'ready', 'live', 'retired')),
    index_identity text COLLATE "C" NOT NULL DEFAULT '',
    shape text COLLATE "C" NOT NULL,
    folds text COLLATE "C" NOT NULL,
    mixed boolean NOT NULL DEFAULT false,
    rolled_back boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    live_at timestamptz,
    retired_at timestamptz,
    events_per_second double precision,
    PRIMARY KEY (projection, generation)
);

CREATE UNIQUE INDEX generations_live ON generations (projection, store) WHERE state = 'live';
CREATE UNIQUE INDEX generations_coming ON generations (projection, store) WHERE state IN ('building', 'ready');

COMMENT ON COLUMN generations.store IS 'The read store that its index is in: each store has a live generation of its own.';
COMMENT ON COLUMN generations.index_identity IS 'The one index whose documents the checkpoints speak of.';
COMMENT ON COLUMN generations.shape IS 'Fingerprint of the fields of its documents.';
COMMENT ON COLUMN generations.folds IS 'Fingerprint of the code that folded it from the beginning.';
COMMENT ON COLUMN generations.mixed IS 'Other code has folded into it since.';
COMMENT ON COLUMN generations.rolled_back IS 'It was live and was given up for the one before it.';
COMMENT ON COLUMN generations.events_per_second IS 'How fast it was built.';

CREATE TABLE partitions (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    visible_position bigint NOT NULL DEFAULT 0,
    worker text COLLATE "C",
    epoch bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    failure text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, partition),
    FOREIGN KEY (projection, generation) REFERENCES generations (projection, generation) ON DELETE CASCADE,
    CHECK (visible_position <= position)
) WITH (fillfactor = 50);

COMMENT ON COLUMN partitions.position IS 'Every event up to here is folded into written documents.';
COMMENT ON COLUMN partitions.visible_position IS 'A search sees every event up to here.';
COMMENT ON COLUMN partitions.epoch IS 'Grows with each lease: who holds an older one may not move the checkpoint.';
COMMENT ON COLUMN partitions.failure IS 'Why its last worker could not go on.';

CREATE SEQUENCE lease_epochs;

COMMENT ON SEQUENCE lease_epochs IS 'No two leases ever have the same epoch.';

CREATE TABLE workers (
    worker text COLLATE "C" PRIMARY KEY,
    projections text[] COLLATE "C" NOT NULL,
    seen_at timestamptz NOT NULL
);

CREATE TABLE parked_keys (
    projection text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    error text NOT NULL,
    owner text COLLATE "C" NOT NULL,
    events_waiting bigint NOT NULL DEFAULT 0,
    parked_at timestamptz NOT NULL DEFAULT now(),
    retry_requested_at timestamptz,
    retried_at timestamptz,
    PRIMARY KEY (projection, generation, key),
    FOREIGN KEY (projection, generation) REFERENCES generations (projection, generation) ON DELETE CASCADE
);

COMMENT ON COLUMN parked_keys.owner IS 'What its partition is told by: the key, or the stream of the event that failed.';
COMMENT ON COLUMN parked_keys.position IS 'The event that could not be folded; it and all later ones of the key wait.';

CREATE TABLE skipped_events (
    projection text COLLATE "C" NOT NULL REFERENCES projections (name),
    key text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    error text NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, key, position)
);

COMMENT ON TABLE skipped_events IS 'Events that somebody gave up for one document: every fold passes them over.';
