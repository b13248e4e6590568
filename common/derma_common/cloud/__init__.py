"""What leaves the machine and what comes back: the entries of the Redis streams, their keys, and the connection."""
