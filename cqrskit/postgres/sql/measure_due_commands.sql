-- How many wait, of those that our code can run (all, without names), how many are parked, when the oldest that waits was
-- due, and what has been due for too long that our code cannot run. A failed one is tried again within a minute, so what
-- is due is among the first by run_at, and the many that wait for a later time are looked at only to count them.
SELECT CASE WHEN %(count)s THEN (
           SELECT count(*) FROM due_commands
           WHERE parked_at IS NULL AND (%(names)s::text[] IS NULL OR command = ANY(%(names)s))
       ) END,
       (SELECT count(*) FROM due_commands WHERE parked_at IS NOT NULL),
       (SELECT min(due_at) FROM due_commands
        WHERE parked_at IS NULL AND run_at <= now() + interval '2 minutes'
          AND (%(names)s::text[] IS NULL OR command = ANY(%(names)s))),
       (SELECT array_agg(DISTINCT command) FROM due_commands
        WHERE parked_at IS NULL AND run_at <= now() - make_interval(secs => %(patience)s)
          AND NOT command = ANY(%(names)s))
