"""A study for the group level: first-level maps written directly, with known arrays, and covariates of all kinds.

Fitting runs takes most of the time of a whole-program test and is tested elsewhere; the group level reads maps by
their names and does not ask where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.bids.first_level_maps import FirstLevelMap, find_first_level_maps

SPACE = "MNI152NLin2009cAsym"
CONTRAST = "aMinusB"
AFFINE = np.array([[4.0, 0, 0, -10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])
START = f"task-x_space-{SPACE}_contrast-{CONTRAST}"
# some sessions missing, the rest as most studies have them
MISSING = (("02", "03"), ("07", "02"))


@dataclass
class GroupStudy:
    """A raw dataset, a folder of first-level maps, and the arrays in them.

    Attributes
    ----------
    raw, maps : Path
    effects, variances : dict of (str, str) to ndarray, 3-D
        By participant and session.
    """

    raw: Path
    maps: Path
    effects: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    variances: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Participant and session of each map, in the order of the program's rows."""
        return sorted(self.effects)

    @property
    def stacked(self) -> NDArray[np.float64]:
        """All effects, shape (N, V), in the order of `keys`."""
        return np.array([self.effects[key].ravel() for key in self.keys])

    @property
    def first_level_maps(self) -> list[FirstLevelMap]:
        """What the program finds of them, in the order of its rows."""
        return sorted(find_first_level_maps([self.maps]).maps, key=lambda found: found.key)

    def map_path(self, participant: str, session: str, statistic: str = "effect", contrast: str = CONTRAST) -> Path:
        folder, name = self.maps / f"sub-{participant}", f"sub-{participant}"
        if session:
            folder, name = folder / f"ses-{session}", f"{name}_ses-{session}"
        return (
            folder
            / "func"
            / (f"{name}_task-x_space-{SPACE}_contrast-{contrast}_stat-{statistic}_desc-fixedEffects_statmap.nii.gz")
        )

    def write(
        self,
        participant: str,
        session: str,
        effect: NDArray[np.float64],
        variance: NDArray[np.float64] | None,
        contrast: str = CONTRAST,
        affine: NDArray[np.float64] = AFFINE,
    ) -> None:
        """Write a map as the participant level does, times of modification apart."""
        path = self.map_path(participant, session, contrast=contrast)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(effect, affine), path)
        if variance is not None:
            nib.save(
                nib.Nifti1Image(variance, affine), self.map_path(participant, session, "variance", contrast=contrast)
            )
        sidecar = {"Contrast": "a - b", "ContrastWeights": {"a": 1.0, "b": -1.0}, "DegreesOfFreedom": 80.0}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar), encoding="utf-8")
        if contrast == CONTRAST:
            self.effects[participant, session] = effect
            if variance is not None:
                self.variances[participant, session] = variance

    def participants_table(self, table: Mapping[str, Sequence[object]]) -> None:
        """Write participants.tsv."""
        pd.DataFrame(table).to_csv(self.raw / "participants.tsv", sep="\t", index=False, na_rep="n/a")

    def sessions_table(self, participant: str, table: Mapping[str, Sequence[object]]) -> None:
        """Write a participant's sub-XX_sessions.tsv."""
        path = self.raw / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(table).to_csv(path, sep="\t", index=False, na_rep="n/a")


def empty_study(folder: Path) -> GroupStudy:
    """Make a raw dataset and a folder of derivatives without any map."""
    raw, maps = folder / "bids", folder / "firstlevel"
    for root, kind in ((raw, "raw"), (maps, "derivative")):
        root.mkdir(parents=True)
        description = {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": kind}
        if kind == "derivative":
            description["GeneratedBy"] = [{"Name": "FitLins"}]  # type: ignore[assignment]
        (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    return GroupStudy(raw, maps)


def make_study(
    folder: Path,
    *,
    n_participants: int = 9,
    sessions: Sequence[str] = ("01", "02", "03"),
    missing: Iterable[tuple[str, str]] = MISSING,
    shape: tuple[int, int, int] = (6, 6, 6),
    variances: bool = True,
    seed: int = 0,
) -> GroupStudy:
    """Make a study with effects in one corner, participants that differ, an age and two groups.

    Participant i has age 20 + 3·i² mod 17, group control or patient by turns, and days since baseline that differ
    between participants.
    """
    study = empty_study(folder)
    rng = np.random.default_rng(seed)
    labels = [f"{number:02d}" for number in range(1, n_participants + 1)]
    ages = [20 + 3 * number**2 % 17 for number in range(n_participants)]
    groups = ["control" if number % 2 else "patient" for number in range(n_participants)]
    study.participants_table(
        {
            "participant_id": [f"sub-{label}" for label in labels],
            "age": ages,
            "group": groups,
            "site": ["x"] * len(labels),
        }
    )
    missing = set(missing)
    for number, label in enumerate(labels):
        level = rng.normal(0, 0.5, shape)
        days, moods = [], []
        for order, session in enumerate(sessions or ("",)):
            days.append(order * 20 + (number * order) % 5)
            moods.append(round(float(rng.normal()), 3))
            effect = level + rng.normal(0, 0.4, shape)
            effect[:2, :3] += 1.0 + 0.5 * order + 0.05 * (ages[number] - 25)
            if (label, session) not in missing:
                study.write(label, session, effect, rng.uniform(0.05, 0.2, shape) if variances else None)
        if sessions:
            study.sessions_table(
                label, {"session_id": [f"ses-{session}" for session in sessions], "days": days, "mood": moods}
            )
    return study


def read(path: Path) -> NDArray[np.float64]:
    return np.asarray(nib.load(path).get_fdata())


def group_path(
    output: Path,
    strategy: str,
    statistic: str,
    sessions: str | None = "mean",
    covariate: str | None = None,
    desc: str | None = None,
) -> Path:
    """Name a group map of the study's contrast."""
    name = START
    for key, label in (("sessions", sessions), ("covariate", covariate), ("strategy", strategy), ("stat", statistic),
                       ("desc", desc)):  # fmt: skip
        name += f"_{key}-{label}" if label else ""
    return output / "group" / f"{name}_statmap.nii.gz"


def group_map(*place: Any, **entities: Any) -> NDArray[np.float64]:
    """Read the map that `group_path` names, raveled."""
    return read(group_path(*place, **entities)).ravel()


def sidecar_of(image: Path) -> dict[str, Any]:
    """Read the JSON beside an image."""
    return strict_json(image.with_name(image.name.replace(".nii.gz", ".json")))


def strict_json(path: Path) -> dict[str, Any]:
    """Read JSON as the standard has it, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{path} holds {constant}")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert isinstance(content, dict)
    return content
