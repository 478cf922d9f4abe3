-- A worker has ended, and so have those that nobody has seen for a day.
DELETE FROM workers WHERE worker = %(worker)s OR seen_at < clock_timestamp() - interval '1 day'
