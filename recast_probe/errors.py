"""Errors written for people: what was wrong, with the value, and what to do."""

from __future__ import annotations


class RecastProbeError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(RecastProbeError, ValueError):
    """An argument, image, mask or file that cannot be used; nothing was written."""


class MissingWeightsError(InputError):
    """Weights that are not on this machine and could not be fetched; the message says how to."""


class MissingPackageError(InputError):
    """An optional package that is needed here and not installed; the message says how to get it."""


class DamagedFileError(InputError):
    """A file of this package that is missing, damaged, foreign, or newer than this version."""


class ProfileFileError(RecastProbeError):
    """A profile file that is damaged, foreign, or newer than this version."""


class UnsupportedPipelineError(RecastProbeError, TypeError):
    """A pipeline whose family is not known."""


class VerificationError(RecastProbeError):
    """A run-time check of exactness failed; the numbers must not be used."""
