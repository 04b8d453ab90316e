"""The agent: the one resident process of the guest."""
