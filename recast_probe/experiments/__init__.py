"""Questions that take several runs of one case."""

from recast_probe.experiments import faithfulness as faithfulness
from recast_probe.experiments.attribution import attribution as attribution
from recast_probe.experiments.attribution_result import Attribution as Attribution
from recast_probe.experiments.causal_map import CausalMap as CausalMap
from recast_probe.experiments.causal_map import causal_map as causal_map
from recast_probe.experiments.drift import drift as drift
from recast_probe.experiments.oracle import causal_oracle as causal_oracle
from recast_probe.experiments.path_profiles import path_profiles as path_profiles
from recast_probe.experiments.received_attention import received_attention as received_attention
from recast_probe.experiments.sink_knockout import SinkKnockout as SinkKnockout
from recast_probe.experiments.sink_knockout import sink_knockout as sink_knockout
from recast_probe.experiments.text_lens import TextLens as TextLens
from recast_probe.experiments.text_lens import text_lens as text_lens
