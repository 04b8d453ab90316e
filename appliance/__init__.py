"""The guest: the agent that runs in it, its protocol, and the recipe it is built from."""
