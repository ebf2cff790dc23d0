"""Routes a message by capability; imports its neighbours by their bare names, as services of a v1.2 stack do."""

from rate_limiter import RateLimitConfig, get_rate_limiter
from registry import get_registry


class MessageRouter:
    def __init__(self, peer_service):
        self.peer_service = peer_service
        self.limiter = get_rate_limiter()
        self.limit = RateLimitConfig(requests_per_minute=60, burst_size=2)

    async def route(self, capability, message):
        """Send to everybody with `capability`; return who got it. Each receiver gets two messages at once at most."""
        reached = []
        for entity_id in get_registry().find_by_capability(capability):
            allowed, _ = await self.limiter.check_rate_limit(f"route:{entity_id}", self.limit)
            if allowed:
                self.peer_service.send(entity_id, message)
                reached.append(entity_id)
        return reached
