"""Evidence containers: what a file is, what it may refer to, and its sandboxed export."""
