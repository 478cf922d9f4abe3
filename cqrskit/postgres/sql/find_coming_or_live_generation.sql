-- A projection has, in a read store, at most one generation that is live, and at most one that is on its way.
SELECT generation FROM generations
WHERE projection = %(projection)s AND store = %(store)s
  AND CASE WHEN %(state)s = 'live' THEN state = 'live' ELSE state IN ('building', 'ready') END
