-- Make the checkpoint if it is new. One that speaks of another index (removed since, or in another read store)
-- begins again at 0; otherwise the update changes nothing and returns the row that is there.
INSERT INTO projections AS kept (name, generation, index_identity) VALUES (%(name)s, %(generation)s, %(identity)s)
ON CONFLICT (name, generation) DO UPDATE
SET index_identity = excluded.index_identity,
    position = CASE WHEN kept.index_identity = excluded.index_identity THEN kept.position ELSE 0 END,
    visible_position = CASE WHEN kept.index_identity = excluded.index_identity THEN kept.visible_position ELSE 0 END
RETURNING position, visible_position
