-- The first revocation is the one that is remembered.
UPDATE api_keys
SET revoked_at = coalesce(revoked_at, now())
WHERE key_id = %(key_id)s
RETURNING key_id, name, scopes, hash, created_at, expires_at, revoked_at
