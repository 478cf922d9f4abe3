-- A worker is alive.
INSERT INTO workers (worker, projections, seen_at) VALUES (%(worker)s, %(projections)s, clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET projections = excluded.projections, seen_at = excluded.seen_at
