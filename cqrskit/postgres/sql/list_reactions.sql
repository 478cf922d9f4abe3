SELECT name, positions FROM reactions WHERE name = ANY(%(names)s)
