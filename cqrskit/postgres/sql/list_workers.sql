-- The workers that were alive a moment ago.
SELECT worker, projections FROM workers
WHERE seen_at > clock_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY worker
