"""What the attributes of a recorded array say of its run."""

from __future__ import annotations

import json
from typing import Any

import xarray as xr

from recast_probe.layout import TokenLayout


class RunLabels:
    """Properties of what holds a recorded array as `data`, its attributes with it."""

    data: xr.DataArray

    @property
    def layout(self) -> TokenLayout:
        """Token positions of the run."""
        return TokenLayout.from_dict(json.loads(self.data.attrs["layout"]))

    @property
    def provenance(self) -> dict[str, Any]:
        """How the run was made."""
        return json.loads(self.data.attrs["provenance"])

    @property
    def queries(self) -> str:
        """The token group whose attention it is."""
        return str(self.data.attrs["queries"])

    @property
    def selection(self) -> str:
        """What was recorded, in words."""
        return str(self.data.attrs["selection"])
