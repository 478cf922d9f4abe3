-- End a connection of ours that we lost but the server may still serve; no row when it is gone. Its name is its own.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %(name)s
