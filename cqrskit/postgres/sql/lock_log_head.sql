-- Hold the log: who appends waits until this transaction ends, and everything committed before is visible to it.
SELECT position FROM log_head FOR UPDATE
