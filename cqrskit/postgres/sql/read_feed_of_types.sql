-- One block of the feed, only some types; see read_feed.sql. A name without a version stands for all versions of the
-- event, also for those that only newer code knows: a follower must stop at one of them rather than miss it.
SELECT position, stream_id, stream_version, type, data, metadata, recorded_at
FROM events
WHERE position > %(after)s AND position <= %(until)s
  AND (type = ANY(%(types)s) OR split_part(type, '@', 1) = ANY(%(types)s))
ORDER BY position
