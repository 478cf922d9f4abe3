-- How far every projection is.
SELECT name, generation, index_identity, position, visible_position FROM projections ORDER BY name, generation
