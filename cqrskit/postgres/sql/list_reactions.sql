SELECT name, position FROM reactions WHERE name = ANY(%(names)s)
