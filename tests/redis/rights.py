"""What the server's user must be allowed to do."""

__all__ = ["RULES"]

RULES = (
    *("+evalsha", "+eval", "+get", "+mget", "+set", "+del", "+pttl", "+pexpire", "+time", "+ping"),
    *(
        "+hget",
        "+hmget",
        "+hgetall",
        "+hset",
        "+hdel",
        "+hlen",
        "+hkeys",
        "+hexists",
        "+hstrlen",
        "+publish",
        "+subscribe",
    ),
)
