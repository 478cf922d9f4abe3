-- Keep workers from moving a projection, or let them again.
UPDATE projections SET paused_at = CASE WHEN %(paused)s THEN coalesce(paused_at, now()) END
WHERE name = %(projection)s
