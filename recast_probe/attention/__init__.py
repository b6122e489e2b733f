"""Tensors only: exact attention with its statistics as a by-product."""

from __future__ import annotations

from recast_probe.attention.cuts import attention_with_cuts
from recast_probe.attention.dense import dense_attention
from recast_probe.attention.inputs import AttentionInputs, Cut
from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp
from recast_probe.attention.readout import PairStatistics, Readout, attend

__all__ = [
    "AttentionInputs",
    "Cut",
    "PairStatistics",
    "Readout",
    "attend",
    "attention_with_cuts",
    "attention_with_log_sum_exp",
    "dense_attention",
]
