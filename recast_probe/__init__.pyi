from . import (
    budget as budget,
)
from . import (
    cost_model as cost_model,
)
from . import (
    datasets as datasets,
)
from . import (
    diagnostics as diagnostics,
)
from . import (
    experiments as experiments,
)
from . import (
    figures as figures,
)
from . import (
    interventions as interventions,
)
from . import (
    masks as masks,
)
from . import (
    metrics as metrics,
)
from . import (
    paper_claims as paper_claims,
)
from . import (
    pipelines as pipelines,
)
from . import (
    pocket as pocket,
)
from . import (
    rank as rank,
)
from . import (
    report as report,
)
from . import (
    studies as studies,
)
from . import (
    testing as testing,
)
from .acceleration.accelerated_pipeline import Acceleration as Acceleration
from .acceleration.accelerated_pipeline import accelerate as accelerate
from .attention.plain import read_attention as read_attention
from .diagnostics import (
    Alignment as Alignment,
)
from .diagnostics import (
    CopyHeads as CopyHeads,
)
from .diagnostics import (
    Correspondence as Correspondence,
)
from .diagnostics import (
    Entropy as Entropy,
)
from .diagnostics import (
    Flow as Flow,
)
from .diagnostics import (
    Interval as Interval,
)
from .diagnostics import (
    Overlap as Overlap,
)
from .diagnostics import (
    PairedDifference as PairedDifference,
)
from .diagnostics import (
    Sinks as Sinks,
)
from .diagnostics import (
    Skew as Skew,
)
from .diagnostics import (
    Stability as Stability,
)
from .diagnostics import (
    Survey as Survey,
)
from .diagnostics import (
    alignment as alignment,
)
from .diagnostics import (
    bootstrap_mean as bootstrap_mean,
)
from .diagnostics import (
    copy_heads as copy_heads,
)
from .diagnostics import (
    correspondence as correspondence,
)
from .diagnostics import (
    entropy as entropy,
)
from .diagnostics import (
    flow as flow,
)
from .diagnostics import (
    mask_to_grid as mask_to_grid,
)
from .diagnostics import (
    overlap as overlap,
)
from .diagnostics import (
    paired_difference as paired_difference,
)
from .diagnostics import (
    sinks as sinks,
)
from .diagnostics import (
    skew as skew,
)
from .diagnostics import (
    stability as stability,
)
from .diagnostics import (
    stability_over as stability_over,
)
from .diagnostics import (
    survey as survey,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    MissingPackageError as MissingPackageError,
)
from .errors import (
    MissingWeightsError as MissingWeightsError,
)
from .errors import (
    ProfileFileError as ProfileFileError,
)
from .errors import (
    RecastProbeError as RecastProbeError,
)
from .errors import (
    UnsupportedPipelineError as UnsupportedPipelineError,
)
from .errors import (
    VerificationError as VerificationError,
)
from .errors import (
    WorkerLostError as WorkerLostError,
)
from .experiments.drift import drift as drift
from .experiments.path_profiles import path_profiles as path_profiles
from .experiments.received_attention import received_attention as received_attention
from .experiments.text_lens import text_lens as text_lens
from .explorer import explore as explore
from .interventions import (
    Intervention as Intervention,
)
from .interventions import (
    Keep as Keep,
)
from .interventions import (
    Knockout as Knockout,
)
from .interventions import (
    Merge as Merge,
)
from .interventions import (
    Patch as Patch,
)
from .interventions import (
    Prune as Prune,
)
from .interventions import (
    Recast as Recast,
)
from .interventions import (
    Record as Record,
)
from .interventions import (
    ReuseReference as ReuseReference,
)
from .interventions import (
    Similarity as Similarity,
)
from .interventions import (
    StepCache as StepCache,
)
from .interventions import (
    TokenCache as TokenCache,
)
from .interventions import (
    Weigh as Weigh,
)
from .interventions import (
    WithoutReference as WithoutReference,
)
from .layout import Grid as Grid
from .layout import TokenLayout as TokenLayout
from .pipelines.flux.redux_pipeline import FluxReduxPipeline as FluxReduxPipeline
from .probe import Probe as Probe
from .profiles.activations import Activations as Activations
from .profiles.maps import AttentionMaps as AttentionMaps
from .profiles.profile import AttentionProfile as AttentionProfile
from .profiles.profile_store import ProfileStore as ProfileStore
from .profiles.received import ReceivedAttention as ReceivedAttention
from .runs.result import RunResult as RunResult
from .selection import (
    Adaptive as Adaptive,
)
from .selection import (
    Fixed as Fixed,
)
from .selection import (
    FreshShare as FreshShare,
)
from .selection import (
    Ranking as Ranking,
)

__version__: str
