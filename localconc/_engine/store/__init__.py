"""The database: the file, its transactions, its rows, and the log of definitions beside it."""
