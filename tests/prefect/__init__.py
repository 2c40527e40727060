"""The same code with a real Prefect server as the keeper of its limits."""
