"""The parts of the rate limiter. Import them from `peercore.services.rate_limiter`, the module with v1.2's names."""
