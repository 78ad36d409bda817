"""The hostile world: each fault that a provider, network, Postgres, host or person can bring about."""
