"""Native services under v1.2's names: `peercore.services.rate_limiter` stands for `services.rate_limiter`."""
