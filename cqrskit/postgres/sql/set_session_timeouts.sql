-- Limits of a recorder's connection, in milliseconds; 0 is none. With `local` they end with the transaction.
SELECT set_config('idle_in_transaction_session_timeout', %(idle_milliseconds)s, %(local)s),
       set_config('lock_timeout', %(lock_milliseconds)s, %(local)s)
