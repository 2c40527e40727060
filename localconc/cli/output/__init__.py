"""What commands print, and the files they write: tables, JSON, pictures of the history, Prometheus text."""
