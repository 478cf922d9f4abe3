SELECT min(run_at) FROM due_commands WHERE parked_at IS NULL AND leased_until IS NULL AND command = ANY(%(names)s)
