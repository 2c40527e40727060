"""What holds on this machine's engine and on a Prefect server: each test runs on both."""
