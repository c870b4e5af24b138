"""Redis without a way back for messages that were fetched and not begun when the connection went.

kombu would try to put them back over the connection that is gone, and leave them in a file; they are published again.
"""

from kombu.transport import redis


class Channel(redis.Channel):
    do_restore = False


class Transport(redis.Transport):
    Channel = Channel
