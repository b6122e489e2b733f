"""Benchmarks as data: each a list of cases with reference, prompt, category and seed."""

from recast_probe.datasets.case import Case, FileCase, case_digest, file_label, mask_origin
from recast_probe.datasets.dreambench import dreambench
from recast_probe.datasets.dreambooth import dreambooth
from recast_probe.datasets.folder import folder
from recast_probe.datasets.kontextbench import kontextbench
from recast_probe.datasets.loading import BENCHMARKS, load_benchmark, named_benchmark

__all__ = [
    "BENCHMARKS",
    "Case",
    "FileCase",
    "case_digest",
    "dreambench",
    "dreambooth",
    "file_label",
    "folder",
    "kontextbench",
    "load_benchmark",
    "mask_origin",
    "named_benchmark",
]
