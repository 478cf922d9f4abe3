-- Followers are woken by this channel; it is a hint only, they poll as well.
LISTEN cqrskit_log
