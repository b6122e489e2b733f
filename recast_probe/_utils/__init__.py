"""What every other folder may use: checks, text, seeds, devices, provenance."""
