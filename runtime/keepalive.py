"""How server and client notice a peer that vanished without a word. One place, because they must agree.

A peer is given up after ``KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS``. The server counts pings that come more
often than ``MIN_PING_INTERVAL_MS`` as abuse and closes the connection, so no client may ping faster.
"""

KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
MIN_PING_INTERVAL_MS = 5_000
