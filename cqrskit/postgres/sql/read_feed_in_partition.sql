-- One block of the feed, only the streams of one partition, and only some types if any are named; see
-- read_feed_of_types.sql. The last four hexadecimal digits of a stream's id, modulo the number of partitions, tell the
-- partition: as cqrskit/partition.py has it.
SELECT position, stream_id, stream_version, type, data, metadata, recorded_at
FROM events
WHERE position > %(after)s AND position <= %(until)s
  AND (get_byte(uuid_send(stream_id), 14) * 256 + get_byte(uuid_send(stream_id), 15)) %% %(count)s::int = %(number)s::int
  AND (%(types)s::text[] IS NULL
       OR type = ANY(%(types)s) OR split_part(type, '@', 1) = ANY(%(types)s))
ORDER BY position
