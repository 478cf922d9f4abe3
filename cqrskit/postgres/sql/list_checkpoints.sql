-- How far every projection is.
SELECT name, generation, position, visible_position FROM projections ORDER BY name, generation
