"""Faces: found, brought into one pose, and compared."""

from __future__ import annotations

from recast_probe.metrics.faces.alignment import TEMPLATE, align, similarity
from recast_probe.metrics.faces.auraface import AuraFace
from recast_probe.metrics.faces.detection import Face, FaceDetector

__all__ = ["TEMPLATE", "AuraFace", "Face", "FaceDetector", "align", "similarity"]
