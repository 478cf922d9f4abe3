-- A projection that stopped, since it could not go on, may be told to try again without a restart of its workers.

ALTER TABLE projections ADD COLUMN resumptions integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN projections.resumptions IS 'How often somebody resumed it; a worker that gave a partition up takes it again when this has grown.';
