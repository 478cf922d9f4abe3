-- The next generation of a projection. Its number was never given before: an index of a generation that is forgotten may
-- still be there, and whoever worked on it may still be at it.
WITH numbered AS (
    UPDATE projections SET last_generation = last_generation + 1 WHERE name = %(projection)s RETURNING last_generation
)
INSERT INTO generations (projection, generation, store, state, shape, folds, live_at)
SELECT %(projection)s, last_generation, %(store)s, %(state)s, %(shape)s, %(folds)s,
       CASE WHEN %(state)s = 'live' THEN now() END
FROM numbered
RETURNING generation
