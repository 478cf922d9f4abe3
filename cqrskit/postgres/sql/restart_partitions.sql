-- Documents of another index than before: all is to be folded again.
UPDATE partitions SET position = 0, visible_position = 0, epoch = nextval('lease_epochs'), worker = NULL, leased_until = NULL
WHERE projection = %(projection)s AND generation = %(generation)s
