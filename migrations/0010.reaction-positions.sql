-- A reaction has a checkpoint for each type of event that it reacts to, so that an older process, which reacts to fewer
-- types, does not move it past events of a type that it does not look at.

ALTER TABLE reactions ADD COLUMN positions jsonb NOT NULL DEFAULT '{}';

-- Whoever takes due commands takes those that its code knows by name, and so the events that its reactions have parked.
UPDATE due_commands SET command = 'reaction:' || (convert_from(content, 'UTF8')::jsonb ->> 0) WHERE command = 'reaction';

CREATE INDEX due_commands_parked ON due_commands (due_at) WHERE parked_at IS NOT NULL;

COMMENT ON COLUMN reactions.positions IS 'By type, without its version: up to where commands are stored.';
COMMENT ON COLUMN reactions.position IS 'The furthest of these: there begins a type that is new to the reaction.';
