"""Questions that take several runs of one case."""
