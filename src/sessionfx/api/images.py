"""Statistical maps as images in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nibabel import Nifti1Image

from sessionfx.bids.writing import map_image
from sessionfx.errors import CommandLineError
from sessionfx.space.stat_map import StatMap


@dataclass(frozen=True)
class StatImages:
    """An estimate, or an F test, as images of one grid.

    Images hold double precision, 0 outside the mask, and 1 for p: as the files that the program writes.

    Attributes
    ----------
    units : str
        Of the effect.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> bold = Nifti1Image(np.random.default_rng(0).normal(100, 1, (3, 3, 3, 60)), np.eye(4))
    >>> mask = Nifti1Image(np.ones((3, 3, 3), dtype="uint8"), np.eye(4))
    >>> events = pd.DataFrame({"onset": [10.0, 50.0, 90.0], "duration": 10.0, "trial_type": "go"})
    >>> go = sessionfx.fit_run(bold, events, "go", mask=mask, t_r=2.0)["go"]
    >>> go
    StatImages of effect, variance, t, z, p, dof at 27 voxels
    >>> go.z.shape, go.units
    ((3, 3, 3), 'percent signal change')
    """

    _stat_map: StatMap[Any] = field(repr=False)
    units: str

    def __repr__(self) -> str:
        return f"StatImages of {', '.join(self.statistics)} at {int(self._stat_map.mask.sum())} voxels"

    @property
    def statistics(self) -> tuple[str, ...]:
        """What there are images of."""
        return (*(name for name in self._stat_map.estimate.maps() if name != "dof"), "dof")

    def image(self, statistic: str) -> Nifti1Image:
        """Make the image of a statistic by its name in file names.

        Parameters
        ----------
        statistic : str
            One of `statistics`.

        Returns
        -------
        Nifti1Image
            3-D; 4-D for `effects` and `covariance` of the rows of an F test.

        Raises
        ------
        SessionFXError
            If there is no such map.
        """
        if statistic not in self.statistics:
            raise CommandLineError(f"There is no map of {statistic}; those there are: {', '.join(self.statistics)}.")
        stat_map = self._stat_map
        dof = np.broadcast_to(np.asarray(stat_map.estimate.dof, dtype=float), stat_map.estimate.z.shape)
        values = {"dof": dof} | stat_map.estimate.maps()
        outside = 1.0 if statistic == "p" else 0.0
        return map_image(values[statistic], stat_map.mask, stat_map.grid, outside=outside, dtype=np.float64)

    @property
    def effect(self) -> Nifti1Image:
        """Contrast estimate, in `units`; an F test has none."""
        return self.image("effect")

    @property
    def variance(self) -> Nifti1Image:
        """Sampling variance of the effect; an F test has none."""
        return self.image("variance")

    @property
    def t(self) -> Nifti1Image:
        """Student's t; an F test has none."""
        return self.image("t")

    @property
    def f(self) -> Nifti1Image:
        """F; a t test has none."""
        return self.image("F")

    @property
    def z(self) -> Nifti1Image:
        """Normal deviate with the same upper-tail p as t or F."""
        return self.image("z")

    @property
    def p(self) -> Nifti1Image:
        """Upper-tail p: of a t test one-sided, small where the effect is large and positive."""
        return self.image("p")

    @property
    def dof(self) -> Nifti1Image:
        """Degrees of freedom of the error."""
        return self.image("dof")

    @property
    def mask(self) -> Nifti1Image:
        """Voxels at which the data determine the test: 1, elsewhere 0."""
        mask = self._stat_map.mask
        return map_image(mask[mask], mask, self._stat_map.grid, dtype=np.uint8)
