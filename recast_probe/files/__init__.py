"""Files that appear whole or not at all, and that vouch for what they hold."""
