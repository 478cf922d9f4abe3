-- Reserve positions. The row lock lasts until the commit and is the log's only sequencer: it makes positions
-- dense and commit order equal to position order.
UPDATE log_head SET position = position + %(count)s RETURNING position
