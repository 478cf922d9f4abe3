-- One receipt by its key, to see whether a batch whose answer was lost is there.
SELECT position, command, outcome, recorded_at FROM command_receipts WHERE key = %(key)s
