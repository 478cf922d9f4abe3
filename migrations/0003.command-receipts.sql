-- What each idempotency key was used for, and what its command's caller was told.

CREATE TABLE command_receipts (
    key text COLLATE "C" NOT NULL,
    command bytea NOT NULL,
    outcome bytea NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT command_receipts_key PRIMARY KEY (key)
);

CREATE INDEX command_receipts_recorded_at ON command_receipts USING brin (recorded_at);

COMMENT ON TABLE command_receipts IS 'command and outcome are UTF-8 JSON; the view command_receipts_json shows them to people.';
COMMENT ON COLUMN command_receipts.position IS 'The position that the first reply named; a retry gets it again.';

CREATE VIEW command_receipts_json AS
    SELECT key,
           convert_from(command, 'UTF8')::json AS command,
           convert_from(outcome, 'UTF8')::json AS outcome,
           position,
           recorded_at
    FROM command_receipts;
