-- Hold the log: who appends waits until this transaction ends, and everything committed before is visible to it. The
-- time limit is set here and for this transaction only, since behind a pooler a session is not ours to set.
SELECT position, set_config('idle_in_transaction_session_timeout', '60s', true) FROM log_head FOR UPDATE
