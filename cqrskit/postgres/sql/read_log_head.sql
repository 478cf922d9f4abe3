-- Position of the last committed event.
SELECT position FROM log_head
