-- A generation that was being built is level with the log.
UPDATE generations SET state = 'ready', events_per_second = %(rate)s
WHERE projection = %(projection)s AND generation = %(generation)s AND state = 'building'
