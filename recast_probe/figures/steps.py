"""The time axis that several figures share: from noise on the left to the image on the right."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes


def time_axis(values: xr.DataArray) -> tuple[np.ndarray, str]:
    """Positions and label for the steps of `values` (step, ...): timesteps where known."""
    if "timestep" in values.coords:
        return np.asarray(values["timestep"], dtype=float), "Timestep (noise to image)"
    return np.asarray(values["step"], dtype=float), "Step (noise to image)"


def point_forward(axes: Axes, positions: np.ndarray) -> None:
    """Let time run to the right although timesteps count down, with a little room at the ends."""
    low, high = float(positions.min()), float(positions.max())
    room = 0.03 * (high - low) or 1.0
    if positions[0] > positions[-1]:
        axes.set_xlim(high + room, low - room)
    else:
        axes.set_xlim(low - room, high + room)
