-- A reaction's parked events are due commands; their keys begin with its name.
SELECT reactions.name, greatest((SELECT position FROM log_head) - reactions.position, 0),
       (SELECT count(*) FROM due_commands
        WHERE command = 'reaction' AND parked_at IS NOT NULL AND split_part(key, ':', 2) = reactions.name)
FROM reactions
WHERE reactions.name = ANY(%(names)s)
ORDER BY reactions.name
