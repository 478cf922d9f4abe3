-- Who may call the API, and what for. Of a key only the hash is kept.

CREATE TABLE api_keys (
    key_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    scopes text[] COLLATE "C" NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_keys_key_id PRIMARY KEY (key_id)
);

COMMENT ON COLUMN api_keys.name IS 'Who acts with it: the actor in the metadata of events. Several keys may have one name.';
COMMENT ON COLUMN api_keys.hash IS 'SHA-256 of the whole key, which is random enough that no slow hash is needed.';
