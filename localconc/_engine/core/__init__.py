"""The pure parts at the bottom: rules, records, calls and their arguments, the clock, the home, errors."""
