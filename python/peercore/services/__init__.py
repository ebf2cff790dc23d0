"""Native implementations under v1.2's service names: `peercore.services.rate_limiter` stands for `services.rate_limiter`."""
