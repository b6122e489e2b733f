"""Errors written for people: what was wrong, with the value, and what to do."""

from __future__ import annotations


class RecastProbeError(Exception):
    """Base of every error that this package raises on purpose.

    Examples:
        >>> issubclass(ProfileFileError, RecastProbeError)
        True
    """


class InputError(RecastProbeError, ValueError):
    """An argument, image, mask or file that cannot be used; nothing was written.

    Examples:
        >>> issubclass(InputError, ValueError)
        True
    """


class MissingWeightsError(InputError):
    """Weights that are not on this machine and could not be fetched; the message says how to.

    Examples:
        >>> issubclass(MissingWeightsError, InputError)
        True
    """


class MissingPackageError(InputError):
    """An optional package that is needed here and not installed; the message says how to get it.

    Examples:
        >>> issubclass(MissingPackageError, InputError)
        True
    """


class DamagedFileError(InputError):
    """A file of this package that is missing, damaged, foreign, or newer than this version.

    Examples:
        >>> issubclass(DamagedFileError, InputError)
        True
    """


class ProfileFileError(RecastProbeError):
    """A profile file that is damaged, foreign, or newer than this version.

    Examples:
        >>> issubclass(ProfileFileError, RecastProbeError)
        True
    """


class UnsupportedPipelineError(RecastProbeError, TypeError):
    """A pipeline whose family is not known.

    Examples:
        >>> issubclass(UnsupportedPipelineError, TypeError)
        True
    """


class VerificationError(RecastProbeError):
    """A run-time check of exactness failed; the numbers must not be used.

    Examples:
        >>> issubclass(VerificationError, RecastProbeError)
        True
    """


class WorkerLostError(RecastProbeError):
    """Workers of a study died again and again; the message names the runs that are missing. All
    others are stored.

    Examples:
        >>> issubclass(WorkerLostError, RecastProbeError)
        True
    """
