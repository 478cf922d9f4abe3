-- Keep workers from moving a projection, or let them again, those too that gave it up.
UPDATE projections
SET paused_at = CASE WHEN %(paused)s THEN coalesce(paused_at, now()) END,
    resumptions = resumptions + CASE WHEN %(paused)s THEN 0 ELSE 1 END
WHERE name = %(projection)s
