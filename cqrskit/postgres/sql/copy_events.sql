-- Binary COPY is the fastest way in; the columns' order is that of binary_copy.py.
COPY events (position, stream_id, stream_version, type, data, metadata, recorded_at) FROM STDIN (FORMAT BINARY)
