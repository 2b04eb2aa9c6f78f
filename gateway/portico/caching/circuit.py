"""When to leave Redis alone. Pure: it is told the time. Used by the response cache.

A circuit is closed while Redis answers. It opens when Redis fails, and then lets one request try again after each
pause; that one's success closes it. It starts open: the first request finds out.
"""

PAUSE = 1.0
"""Seconds between two tries while it is open."""
SILENCE = 5
"""Timeouts long that nothing at all may have come from Redis before a timeout counts as a failure. A burst of requests
makes single ones time out, while others are answered."""


class Circuit:
    """`timeout` is that of one request, in seconds, and so are all `now`, on one clock."""

    def __init__(self, timeout: float) -> None:
        self._silence = SILENCE * timeout
        self._open = True
        self._trying = False
        self._retry_at = float("-inf")
        self._answered_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether Redis is known to fail, or not yet known to answer."""
        return self._open

    def allows(self, now: float) -> bool:
        """Whether a request may ask Redis. If so, it has to say how that went."""
        if not self._open:
            return True
        if self._trying or now < self._retry_at:
            return False
        self._trying = True
        return True

    def succeeded(self, now: float) -> None:
        """Redis has answered."""
        self._open = self._trying = False
        self._answered_at = now

    def timed_out(self, now: float) -> None:
        """Redis has not answered in time."""
        if self._open or now - self._answered_at > self._silence:
            self.failed(now)

    def failed(self, now: float) -> None:
        """Redis cannot be reached."""
        self._open, self._trying = True, False
        self._retry_at = now + PAUSE

    def gave_up(self) -> None:
        """Nobody waited for Redis's answer."""
        self._trying = False
