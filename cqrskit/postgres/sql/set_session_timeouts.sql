-- sql/set_session_timeouts.sql
-- Limits of a recorder's connection, in milliseconds; 0 is none.
SELECT set_config('idle_in_transaction_session_timeout', %(idle_milliseconds)s, false),
       set_config('lock_timeout', %(lock_milliseconds)s, false)
