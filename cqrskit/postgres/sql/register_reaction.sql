-- Begin a reaction that is new here, from the start of the log or from now on; one that is known stays where it is.
INSERT INTO reactions (name, position)
SELECT %(name)s, CASE WHEN %(from_start)s THEN 0 ELSE log_head.position END FROM log_head
ON CONFLICT (name) DO NOTHING
