"""Interventions on a pipeline that runs at its own speed."""
