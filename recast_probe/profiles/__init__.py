"""What a run leaves: profiles, maps and activations, and their files."""
