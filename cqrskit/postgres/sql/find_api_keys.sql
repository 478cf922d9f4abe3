SELECT key_id, name, scopes, hash, created_at, expires_at, revoked_at
FROM api_keys
WHERE key_id = ANY(%(key_ids)s)
