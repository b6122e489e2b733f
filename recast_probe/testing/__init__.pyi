from . import (
    circuits as circuits,
)
from . import (
    conformance as conformance,
)
from . import (
    planted_attention as planted_attention,
)
from . import (
    planted_profiles as planted_profiles,
)
from . import (
    tiny as tiny,
)
from . import (
    tiny_fibo as tiny_fibo,
)
from . import (
    tiny_flux2 as tiny_flux2,
)
from . import (
    tiny_ip_adapter as tiny_ip_adapter,
)
from . import (
    tiny_joyimage as tiny_joyimage,
)
from . import (
    tiny_longcat as tiny_longcat,
)
from . import (
    tiny_ltx as tiny_ltx,
)
from . import (
    tiny_pipelines as tiny_pipelines,
)
from . import (
    tiny_qwen as tiny_qwen,
)
from . import (
    tiny_qwen21 as tiny_qwen21,
)
from . import (
    tiny_redux as tiny_redux,
)
from .images import assert_same_image as assert_same_image
