"""Qwen-Image-Edit and Qwen-Image-Edit Plus."""
