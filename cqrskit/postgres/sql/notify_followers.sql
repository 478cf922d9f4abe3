-- Wake followers. Sent after the commit, on a connection of its own: inside, it would take an instance-wide lock.
NOTIFY cqrskit_log
