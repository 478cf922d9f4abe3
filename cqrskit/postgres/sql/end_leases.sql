-- Whoever held a partition of this generation holds it no more.
UPDATE partitions SET epoch = nextval('lease_epochs'), worker = NULL, leased_until = NULL
WHERE projection = %(projection)s AND generation = %(generation)s
