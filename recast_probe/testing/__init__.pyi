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
    tiny_flux2 as tiny_flux2,
)
from . import (
    tiny_ip_adapter as tiny_ip_adapter,
)
from . import (
    tiny_qwen as tiny_qwen,
)
from .images import assert_same_image as assert_same_image
