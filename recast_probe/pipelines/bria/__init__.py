"""Bria FIBO Edit."""
