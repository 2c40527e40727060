"""What several tests use: processes that report, a clock moved by hand, and checks of the store's invariants."""
