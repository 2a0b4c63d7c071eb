"""Statistical maps as images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from nibabel import Nifti1Image
from numpy.typing import NDArray

from sessionfx.bids.names import of_hemisphere
from sessionfx.bids.stat_maps import as_kept
from sessionfx.bids.writing import map_image
from sessionfx.errors import CommandLineError
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap

if TYPE_CHECKING:
    from nibabel.cifti2.cifti2 import Cifti2Image
    from nilearn.surface import SurfaceImage

    MapImage: TypeAlias = Nifti1Image | SurfaceImage | Cifti2Image


@dataclass(frozen=True)
class StatImages:
    """An estimate, or an F test, as images of one space.

    They are nibabel's `Nifti1Image` of volumes, nilearn's `SurfaceImage` of surfaces, and of grayordinates nibabel's
    `Cifti2Image`, dense scalars with the axis of the data. They hold double precision, 0 outside the mask, and 1 for p.

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
        n, features = int(self._stat_map.mask.sum()), self._stat_map.space.features
        return f"StatImages of {', '.join(self.statistics)} at {n} {features}"

    @property
    def statistics(self) -> tuple[str, ...]:
        """What there are images of."""
        return (*(name for name in self._stat_map.estimate.maps() if name != "dof"), "dof")

    def image(self, statistic: str) -> MapImage:
        """Make the image of a statistic by its name in file names.

        Parameters
        ----------
        statistic : str
            One of `statistics`.

        Returns
        -------
        Nifti1Image, SurfaceImage or Cifti2Image
            Of one map; of several for `effects` and `covariance` of the rows of an F test.

        Raises
        ------
        SessionFXError
            If there is no such map, or it is of surfaces without a mesh.
        """
        self._check(statistic)
        stat_map = self._stat_map
        dof = np.broadcast_to(np.asarray(stat_map.estimate.dof, dtype=float), stat_map.estimate.z.shape)
        values = ({"dof": dof} | stat_map.estimate.maps())[statistic]
        rows = range(1, len(values) + 1) if values.ndim > 1 else ()
        image: MapImage = map_image(
            values, stat_map.mask, stat_map.space, outside=1.0 if statistic == "p" else 0.0, dtype=np.float64,
            names=tuple(f"{statistic} {row}" for row in rows) or (statistic,),
        )  # fmt: skip
        return image

    def _check(self, statistic: str) -> None:
        if statistic not in self.statistics:
            raise CommandLineError(f"There is no map of {statistic}; those there are: {', '.join(self.statistics)}.")

    @property
    def effect(self) -> MapImage:
        """Contrast estimate, in `units`; an F test has none."""
        return self.image("effect")

    @property
    def variance(self) -> MapImage:
        """Sampling variance of the effect; an F test has none."""
        return self.image("variance")

    @property
    def t(self) -> MapImage:
        """Student's t; an F test has none."""
        return self.image("t")

    @property
    def f(self) -> MapImage:
        """F; a t test has none."""
        return self.image("F")

    @property
    def z(self) -> MapImage:
        """Normal deviate with the same upper-tail p as t or F."""
        return self.image("z")

    @property
    def p(self) -> MapImage:
        """Upper-tail p: of a t test one-sided, small where the effect is large and positive."""
        return self.image("p")

    @property
    def dof(self) -> MapImage:
        """Degrees of freedom of the error."""
        return self.image("dof")

    @property
    def mask(self) -> MapImage:
        """Voxels or vertices at which the data determine the test: 1, elsewhere 0."""
        return mask_image(self._stat_map.mask, self._stat_map.space)

    def _files(self, folder: Path, name: str) -> dict[str, Path]:
        """Write effect and variance, with the digits that the files of the program hold."""
        kept = as_kept(self._stat_map)
        files = {}
        for statistic in ("effect", "variance"):
            self._check(statistic)
            filled = np.nan_to_num(kept.volume(kept.estimate.maps()[statistic])).astype(kept.space.most_precise)
            files[statistic] = folder / f"of-{name}_{statistic}{kept.space.extension}"
            for label, content in kept.space.encoded(filled, names=(statistic,)).items():
                of_hemisphere(files[statistic], label).write_bytes(content)
        return files


class ImageMapping(Mapping[str, StatImages]):
    """Images by name: what `RunEstimates` and `StrategyEstimates` are."""

    _images: dict[str, StatImages]

    def __getitem__(self, name: str) -> StatImages:
        return self._images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


def mask_image(mask: NDArray[np.bool_], space: Space) -> MapImage:
    """Make a mask an image: 1 inside, elsewhere 0."""
    image: MapImage = map_image(mask[mask], mask, space, dtype=np.uint8, names=("mask",))
    return image
