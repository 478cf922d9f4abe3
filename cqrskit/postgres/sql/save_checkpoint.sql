-- Positions only grow: of two projectors that run at once by mistake, the slower one cannot take back what the
-- faster one has promised to readers. A projector whose index was replaced meanwhile changes nothing.
UPDATE projections
SET position = GREATEST(position, %(position)s),
    visible_position = GREATEST(visible_position, %(visible)s),
    updated_at = now()
WHERE name = %(name)s AND generation = %(generation)s AND index_identity = %(identity)s
