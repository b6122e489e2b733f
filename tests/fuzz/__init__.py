"""Damaged, hostile and odd inputs by the thousand; `python -m tests.fuzz` counts what becomes of
them."""
