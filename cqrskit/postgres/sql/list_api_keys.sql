SELECT key_id, name, scopes, hash, created_at, expires_at, revoked_at
FROM api_keys
ORDER BY created_at, key_id
