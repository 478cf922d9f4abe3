INSERT INTO api_keys (key_id, name, scopes, hash, expires_at)
VALUES (%(key_id)s, %(name)s, %(scopes)s, %(hash)s, %(expires_at)s)
RETURNING created_at
