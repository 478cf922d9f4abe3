-- The next generation of a projection; its row is held, so that the numbers stay apart.
INSERT INTO generations (projection, generation, store, state, shape, folds, live_at)
SELECT %(projection)s, coalesce(max(generation), 0) + 1, %(store)s, %(state)s, %(shape)s, %(folds)s,
       CASE WHEN %(state)s = 'live' THEN now() END
FROM generations
WHERE projection = %(projection)s
RETURNING generation
