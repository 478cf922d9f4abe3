-- Delete some of the receipts that were recorded before a moment; the index on the time finds them by ranges of pages.
-- Rows that another process deletes just now are left to it, so that nobody waits.
DELETE FROM command_receipts
WHERE key IN (
    SELECT key FROM command_receipts
    WHERE recorded_at < %(before)s
    LIMIT %(count)s
    FOR UPDATE SKIP LOCKED
)
