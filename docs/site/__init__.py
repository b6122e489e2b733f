"""What builds the site: pages that are made, pictures that are drawn, names that become links."""
