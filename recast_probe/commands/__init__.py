"""One thin command a file; the work is done elsewhere."""
