-- Commands that wait for their time. Each is stored in the transaction of the decision that asked for it, and removed
-- once its outcome is kept: the receipt of `due:<id>` makes a second run harmless. One that fails again and again is
-- parked until somebody looks at it.

CREATE TABLE due_commands (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    command text COLLATE "C" NOT NULL,
    content bytea NOT NULL,
    metadata bytea NOT NULL,
    due_at timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    leased_until timestamptz,
    error text,
    parked_at timestamptz
);

CREATE INDEX due_commands_run_at ON due_commands (run_at) WHERE parked_at IS NULL;

COMMENT ON COLUMN due_commands.id IS 'A new one for each time that something is stored under a key.';
COMMENT ON COLUMN due_commands.run_at IS 'When it is tried next: at due_at, or later after a failure.';
COMMENT ON COLUMN due_commands.leased_until IS 'So long other processes leave it to the one that runs it.';

CREATE TABLE reactions (
    name text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
);

COMMENT ON TABLE reactions IS 'Up to where each reaction has stored its commands; it moves in the transaction that stores them.';
