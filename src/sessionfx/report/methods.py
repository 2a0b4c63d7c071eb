"""The methods section of a paper, as a pure function of what was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from sessionfx import __version__
from sessionfx.settings import Settings
from sessionfx.wording import quoted

_REFERENCES = {
    "nilearn": "Nilearn contributors. nilearn. doi:10.5281/zenodo.8397156",
    "fmriprep": "Esteban O, et al. fMRIPrep: a robust preprocessing pipeline for functional MRI. "
    "Nat Methods 2019;16:111–116. doi:10.1038/s41592-018-0235-4",
    "bids": "Gorgolewski KJ, et al. The brain imaging data structure. Sci Data 2016;3:160044. "
    "doi:10.1038/sdata.2016.44",
    "bids_apps": "Gorgolewski KJ, et al. BIDS apps. PLoS Comput Biol 2017;13:e1005209. "
    "doi:10.1371/journal.pcbi.1005209",
    "pybids": "Yarkoni T, et al. PyBIDS. J Open Source Softw 2019;4:1294. doi:10.21105/joss.01294",
    "compcor": "Behzadi Y, Restom K, Liau J, Liu TT. A component based noise correction method (CompCor) for BOLD and "
    "perfusion based fMRI. NeuroImage 2007;37:90–101. doi:10.1016/j.neuroimage.2007.04.042",
    "glover": "Glover GH. Deconvolution of impulse response in event-related BOLD fMRI. "
    "NeuroImage 1999;9:416–429. doi:10.1006/nimg.1998.0419",
    "fdr": "Genovese CR, Lazar NA, Nichols T. Thresholding of statistical maps using the false discovery rate. "
    "NeuroImage 2002;15:870–878. doi:10.1006/nimg.2001.1037",
    "holmes": "Holmes AP, Friston KJ. Generalisability, random effects & population inference. NeuroImage 1998;7:S754.",
    "mumford": "Mumford JA, Nichols T. Simple group fMRI modeling and inference. NeuroImage 2009;47:1469–1475. "
    "doi:10.1016/j.neuroimage.2009.05.034",
    "greenhouse_geisser": "Geisser S, Greenhouse SW. An extension of Box's results on the use of the F distribution in "
    "multivariate analysis. Ann Math Stat 1958;29:885–891. doi:10.1214/aoms/1177706545",
    "welch": "Welch BL. The generalization of ‘Student's’ problem when several different population variances are "
    "involved. Biometrika 1947;34:28–35. doi:10.1093/biomet/34.1-2.28",
    "hotelling": "Hotelling H. The generalization of Student's ratio. Ann Math Stat 1931;2:360–378. "
    "doi:10.1214/aoms/1177732979",
    "bell_mccaffrey": "Bell RM, McCaffrey DF. Bias reduction in standard errors for linear regression with multi-stage "
    "samples. Surv Methodol 2002;28:169–181.",
    "pustejovsky": "Pustejovsky JE, Tipton E. Small-sample methods for cluster-robust variance estimation and "
    "hypothesis testing in fixed effects models. J Bus Econ Stat 2018;36:672–683. doi:10.1080/07350015.2016.1247004",
    "lmertest": "Kuznetsova A, Brockhoff PB, Christensen RHB. lmerTest package: tests in linear mixed effects models. "
    "J Stat Softw 2017;82(13). doi:10.18637/jss.v082.i13",
    "satterthwaite": "Satterthwaite FE. An approximate distribution of estimates of variance components. "
    "Biometrics Bull 1946;2:110–114. doi:10.2307/3002019",
    "kenward_roger": "Kenward MG, Roger JH. Small sample inference for fixed effects from restricted maximum "
    "likelihood. Biometrics 1997;53:983–997. doi:10.2307/2533558",
    "shrout_fleiss": "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull "
    "1979;86:420–428. doi:10.1037/0033-2909.86.2.420",
    "winkler": "Winkler AM, et al. Permutation inference for the general linear model. NeuroImage 2014;92:381–397. "
    "doi:10.1016/j.neuroimage.2014.01.060",
    "viechtbauer": "Viechtbauer W. Bias and efficiency of meta-analytic variance estimators in the random-effects "
    "model. J Educ Behav Stat 2005;30:261–293. doi:10.3102/10769986030003261",
    "knapp_hartung": "Knapp G, Hartung J. Improved tests for a random effects meta-regression with a single covariate. "
    "Stat Med 2003;22:2693–2710. doi:10.1002/sim.1482",
    "pymare": "PyMARE developers. PyMARE: Python Meta-Analysis & Regression Engine. github.com/neurostuff/PyMARE",
    "bland_altman": "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical "
    "measurement. Lancet 1986;327:307–310. doi:10.1016/S0140-6736(86)90837-8",
    "lin": "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics 1989;45:255–268. "
    "doi:10.2307/2532051",
}


@dataclass(frozen=True)
class MethodsText:
    """Text ready to paste, and the works it cites in order."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]

    def as_text(self) -> str:
        """Plain text with a numbered list of references."""
        listed = "\n".join(f"{number}. {work}" for number, work in enumerate(self.references, start=1))
        return "\n\n".join([*self.paragraphs, listed]) + "\n"


class _Citations:
    """Numbers works in the order they are cited."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        for key in keys:
            if key not in self._keys:
                self._keys.append(key)
        return "[" + ", ".join(str(self._keys.index(key) + 1) for key in keys) + "]"

    def works(self) -> tuple[str, ...]:
        return tuple(_REFERENCES[key] for key in self._keys)


def participant_methods(
    settings: Settings, confounds: Sequence[Sequence[str]], *, has_sessions: bool, preprocessing: Sequence[str]
) -> MethodsText:
    """Describe the participant level.

    Parameters
    ----------
    settings : Settings
    confounds : sequence of sequence of str
        Columns of the confounds table that each run is modelled with.
    has_sessions : bool
        Whether the dataset has sessions.
    preprocessing : sequence of str
        Programs that made the derivatives, as their datasets say (GeneratedBy).

    Returns
    -------
    MethodsText
    """
    cite = _Citations()
    opening = (
        f"Task fMRI data organised as BIDS {cite('bids')}{_preprocessed(preprocessing, cite)} were analysed with "
        f"SessionFX {__version__}, a BIDS App {cite('bids_apps')} built on nilearn {_version('nilearn')} "
        f"{cite('nilearn')} and pybids {_version('pybids')} {cite('pybids')}."
    )
    nuisance = _nuisance(confounds, cite)
    hrf = f"nilearn's '{settings.hrf_model}' haemodynamic response"
    if settings.hrf_model.startswith("glover"):
        hrf += f" {cite('glover')}"
    drift = {
        "cosine": f"cosine drifts up to {settings.high_pass:g} Hz",
        "polynomial": "a linear drift",
        "none": "no drift",
    }[settings.drift_model]
    noise = "a first-order autoregressive model" if settings.noise_model == "ar1" else "ordinary least squares"
    smoothing = (
        f"Volumes were smoothed with a Gaussian of {settings.smoothing_fwhm:g} mm full width at half maximum."
        if settings.smoothing_fwhm
        else "Volumes were not smoothed further."
    )
    first = (
        f"{smoothing} Each run was modelled separately in percent of each voxel's mean: events were convolved "
        f"with {hrf}; nuisance regressors were {', '.join([*nuisance, drift])} and a constant; the noise was handled "
        f"by {noise}."
    )
    weights = (
        "equal weights" if settings.fixed_effects == "equal" else "weights inversely proportional to their variances"
    )
    dof = (
        f"degrees of freedom were found at each voxel by Satterthwaite's approximation {cite('satterthwaite')}"
        if settings.fixed_effects_dof == "satterthwaite"
        else "the degrees of freedom of the runs were added up"
    )
    levels = "runs within sessions, then sessions within participants," if has_sessions else "runs within participants"
    second = (
        f"Contrast estimates were combined by fixed effects over {levels} with {weights}; {dof}. A voxel counts only "
        "where every input has data."
    )
    return MethodsText((opening, first, second), cite.works())


# Confounds by the names of their columns, and how a paper names them; what none of these matches is quoted
_CONFOUND_KINDS = (
    (r"(trans|rot)_[xyz]", "realignment parameters"),
    (r"(trans|rot)_[xyz]_derivative1", "derivatives of realignment parameters"),
    (r"(trans|rot)_[xyz]_power2", "squares of realignment parameters"),
    (r"(trans|rot)_[xyz]_derivative1_power2", "squares of these derivatives"),
    (r"a_comp_cor_\d+", "anatomical CompCor components"),
    (r"motion_outlier\d+", "one regressor for each volume marked as a motion outlier"),
    (r"non_steady_state_outlier\d+", "one regressor for each non-steady-state volume"),
)
_MOST_CONFOUNDS_NAMED = 12


def _nuisance(confounds: Sequence[Sequence[str]], cite: _Citations) -> list[str]:
    """Name the confounds that the runs were modelled with, and in how many runs where not in all."""
    phrases = []
    others = dict.fromkeys(name for columns in confounds for name in columns)
    for pattern, words in _CONFOUND_KINDS:
        of_runs = [[name for name in columns if re.fullmatch(pattern, name)] for columns in confounds]
        for name in {name for names in of_runs for name in names}:
            del others[name]
        numbers = sorted({len(names) for names in of_runs if names})
        if not numbers:
            continue
        if not words.startswith("one "):
            words = f"{'–'.join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))} {words}"
        if "CompCor" in words:
            words += f" {cite('compcor')}"
        phrases.append(words + _in_some(sum(map(bool, of_runs)), len(confounds)))
    named = list(others)[:_MOST_CONFOUNDS_NAMED]
    for name in named:
        phrases.append(f"'{name}'" + _in_some(sum(name in columns for columns in confounds), len(confounds)))
    if len(others) > len(named):
        phrases.append(f"{len(others) - len(named)} more columns of the confounds tables")
    return phrases


def _in_some(n_runs: int, n_all: int) -> str:
    return "" if n_runs == n_all else f" (in {n_runs} of {n_all} runs)"


@dataclass(frozen=True)
class GroupWork:
    """What a call has done at the group level, of which alone the methods text speaks.

    Attributes
    ----------
    strategies : frozenset of str
        Names of those that answered some question.
    permuted, compared, f_tests, reliability : bool
        Whether there were permutations, two answers to one question, tests over all sessions, intraclass correlations.
    adjusted_for : tuple of str
        Session covariates that did not serve as time.
    """

    strategies: frozenset[str] = frozenset()
    permuted: bool = False
    compared: bool = False
    f_tests: bool = False
    reliability: bool = False
    adjusted_for: tuple[str, ...] = ()

    def __or__(self, other: GroupWork) -> GroupWork:
        """Put together what was done for two contrasts."""
        return GroupWork(
            self.strategies | other.strategies,
            self.permuted or other.permuted,
            self.compared or other.compared,
            self.f_tests or other.f_tests,
            self.reliability or other.reliability,
            self.adjusted_for or other.adjusted_for,
        )


def group_methods(
    settings: Settings, strategies: Sequence[tuple[str, tuple[str, ...]]], work: GroupWork
) -> MethodsText:
    """Describe the group level.

    Parameters
    ----------
    settings : Settings
    strategies : sequence of (str, tuple of str)
        What each strategy that answered says of itself, and the works it cites.
    work : GroupWork

    Returns
    -------
    MethodsText
        Paragraphs and references.
    """
    cite = _Citations()
    paragraphs = [
        f"Group inference on session effects used SessionFX {__version__}, a BIDS App {cite('bids_apps')} built "
        f"on nilearn {_version('nilearn')} {cite('nilearn')}. Contrast estimates (not their t or z values) entered "
        "the group models."
    ]
    paragraphs += [_with_citations(text, works, cite) for text, works in strategies]
    if settings.covariates:
        paragraphs.append(
            f"Group models held the covariates {quoted(settings.covariates)} (numbers centred, groups "
            "sum-coded), each with an effect of its own in every session."
        )
    if work.adjusted_for:
        paragraphs.append(
            f"Group models {'also ' if settings.covariates else ''}held the session covariates "
            f"{quoted(work.adjusted_for)}, each with "
            + (
                "one effect within and one between participants in models of all session maps."
                if settings.session_covariate_effect == "split"
                else "one effect over sessions."
            )
        )
    if work.reliability:
        paragraphs.append(
            f"Test–retest reliability was described by intraclass correlations {cite('shrout_fleiss')} at every voxel."
        )
    if work.permuted:
        paragraphs.append(
            f"Family-wise p values of the fixed-effects strategy came from {settings.permutations} permutations "
            f"{cite('winkler')} (sign flips or label permutations by nilearn's permuted_ols, seed "
            f"{settings.random_seed})."
        )
    correction = {
        "fdr": f"a false discovery rate of {settings.alpha:g} {cite('fdr')}",
        "bonferroni": f"a Bonferroni-corrected family-wise error rate of {settings.alpha:g}",
        "none": f"an uncorrected rate of {settings.alpha:g}",
    }[settings.correction]
    f_tests = " (F tests at their upper tail)" if work.f_tests else ""
    paragraphs.append(f"Maps were thresholded two-sided{f_tests} at {correction}, over the voxels that all maps share.")
    if work.compared:
        paragraphs.append(
            "Strategies were compared on the same session contrast by the correlation of their z maps, limits of "
            f"agreement {cite('bland_altman')}, Lin's concordance {cite('lin')} and the Dice overlap of "
            "supra-threshold voxels."
        )
    return MethodsText(tuple(paragraphs), cite.works())


def _with_citations(text: str, works: Sequence[str], cite: _Citations) -> str:
    """Give each `{cite}` a work in turn, and the last one those that are left."""
    *pieces, rest = text.split("{cite}")
    shares = [works[index : index + 1] for index in range(len(pieces) - 1)] + [works[max(len(pieces) - 1, 0) :]]
    return "".join(piece + cite(*share) for piece, share in zip(pieces, shares, strict=False)) + rest


def _preprocessed(programs: Sequence[str], cite: _Citations) -> str:
    named = [f"{program} {cite('fmriprep')}" if "fmriprep" in program.lower() else program for program in programs]
    return f" and preprocessed with {', '.join(named)}" if named else " and preprocessed"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
