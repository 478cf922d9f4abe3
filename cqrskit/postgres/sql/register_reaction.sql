-- Begin a reaction that is new here, from the start of the log or from now on. One that is known stays where it is, and a
-- type that is new to it begins there: what was before that is not looked at.
INSERT INTO reactions (name, position, positions)
SELECT %(name)s, begin.position,
       (SELECT jsonb_object_agg(type, begin.position) FROM unnest(%(types)s::text[]) AS new (type))
FROM (SELECT CASE WHEN %(from_start)s THEN 0 ELSE position END AS position FROM log_head) AS begin
ON CONFLICT (name) DO UPDATE
SET positions = (SELECT jsonb_object_agg(type, reactions.position) FROM unnest(%(types)s::text[]) AS new (type))
                || reactions.positions
