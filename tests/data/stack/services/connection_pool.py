"""Hands out connections, as many per endpoint as the limiter admits."""

from services.rate_limiter import RateLimitConfig, get_rate_limiter


class ConnectionRefused(Exception):
    """The endpoint has had its share."""


class PooledConnectionManager:
    def __init__(self, default_max_connections=10):
        self.limit = RateLimitConfig(requests_per_minute=60, burst_size=default_max_connections)

    async def request(self, endpoint):
        allowed, _ = await get_rate_limiter().check_rate_limit(f"pool:{endpoint}", self.limit)
        if not allowed:
            raise ConnectionRefused(endpoint)
        return {"endpoint": endpoint, "status": 200}
