"""A test for each fault that was found in the field, and for its kind: by public interfaces and real processes."""
