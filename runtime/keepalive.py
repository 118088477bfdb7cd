"""How server and client notice a peer that vanished without a word. One place, because they must agree.

An idle peer is given up after ``KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS``, one that owes an acknowledgement of data
after the second alone: gRPC makes it the socket's TCP_USER_TIMEOUT, and the answer to a ping queues behind megabytes
of sound. So it must be longer than a link stalls or a full buffer takes to drain (with 5 s, an answer at 1 Mbit/s
and one that stalled for 4 s were lost). The server counts pings that come more often than ``MIN_PING_INTERVAL_MS``
as abuse and closes the connection, so no client may ping faster.
"""

KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 20_000
MIN_PING_INTERVAL_MS = 5_000
