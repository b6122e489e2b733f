"""Building blocks for tests of this package and of your own extensions of it.

- `tiny_pipelines`: a random pipeline of every family by its name; the builders are in `tiny`,
  `tiny_fibo`, `tiny_flux2`, `tiny_ip_adapter`, `tiny_joyimage`, `tiny_longcat`, `tiny_ltx`,
  `tiny_qwen`, `tiny_qwen21` and `tiny_redux`, their shared parts in `tiny_parts`
- `planted_attention`, `circuits`: models in which the right answer is set by hand
- `planted_profiles`: profiles with chosen scores
- `conformance`: what a pipeline must keep to be probed

They need neither a test runner nor a download.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
