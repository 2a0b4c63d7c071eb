"""All options, each said once.

The command line, the TOML file, `boutiques.json` and the table in docs/options.md are made from this. Defaults are
those of the fields in `options.groups` that the options fill.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sessionfx.options.groups import DEFAULTS, EFFECT_UNITS, GROUP_OF
from sessionfx.options.values import ANY_TEXT, RUN_PATTERN, Choice, FilePath, Label, Number, Probability, Value


class Takes(Enum):
    """How many values follow an option."""

    NONE = auto()
    NONE_REPEATED = auto()  # -vv
    ONE = auto()
    AT_MOST_ONE = auto()
    SEVERAL = auto()  # after one another
    ONE_REPEATED = auto()  # the option is given again for each


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option, or positional argument, of the command line."""

    name: str  # that of the field it fills
    help: str
    value: Value = ANY_TEXT  # how each of its values is read
    takes: Takes = Takes.ONE
    aliases: tuple[str, ...] = ()  # other spellings, with their hyphens
    metavar: str = ""  # what stands for a value in `--help`, where choices or unit do not
    otherwise: str = ""  # what holds where the option is not given, in words, where the default does not say it
    alone: Any = None  # its value where it is given without one
    is_positional: bool = False

    @property
    def flag(self) -> str:
        """The long spelling."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings."""
        return (self.flag, *self.aliases)

    @property
    def is_list(self) -> bool:
        """Whether it has several values."""
        return self.takes in (Takes.SEVERAL, Takes.ONE_REPEATED)

    @property
    def has_value(self) -> bool:
        """Whether a value may follow it."""
        return self.takes not in (Takes.NONE, Takes.NONE_REPEATED)

    @property
    def is_in_file(self) -> bool:
        """Whether it may stand in the file of `--config-file`."""
        return self.name in GROUP_OF

    @property
    def default(self) -> Any:
        """A value that stands for not giving the option, the same on every machine; None where there is none."""
        default = DEFAULTS.get(self.name) if self.has_value else None
        return None if default == () else default

    @property
    def unit(self) -> str:
        """Unit of its value; empty without one."""
        return self.value.unit if isinstance(self.value, Number) else ""

    @property
    def placeholder(self) -> str:
        """What stands for a value in `--help`."""
        choices = f"{{{','.join(self.value.names)}}}" if isinstance(self.value, Choice) else ""
        return self.metavar or choices or self.unit.upper()

    @property
    def default_words(self) -> str:
        """What holds where it is not given, for people; empty where nothing is to be said."""
        return self.otherwise or ("" if self.default is None else str(self.default))

    @property
    def description(self) -> str:
        """Its help, with unit and default."""
        repeatable = "repeatable" if self.takes is Takes.ONE_REPEATED else ""
        default = self.default_words and f"default: {self.default_words}"
        more = "; ".join(filter(None, (self.unit, repeatable, default)))
        return f"{self.help} ({more})" if more else self.help


LEVELS = ("participant", "group")
# the registry of strategies is checked against these
STRATEGY_NAMES = ("session-model", "summary-statistics", "marginal", "mixed", "meta")
# what the group node of a BIDS Stats Model is: ordinary least squares on one value per participant
STATS_MODEL_STRATEGY = "summary-statistics"
_WITH = ("", " + derivative", " + derivative + dispersion")
HRF_MODELS = (*(name + more for name in ("glover", "spm") for more in _WITH), "fir")
# the old name, which means another thing in other programs
STRATEGIES = Choice(STRATEGY_NAMES, (("fixed-effects", "summary-statistics"),))
PROCESSORS = Number(largest=1024, zero=False, whole=True, reason="more than a machine has, or a scheduler likes")

SECTIONS = {
    "positional arguments": (
        Option(name="bids_dir", is_positional=True, value=FilePath(), metavar="BIDS_DIR", help="the raw BIDS dataset"),
        Option(name="output_dir", is_positional=True, value=FilePath(must_exist=False), metavar="OUTPUT_DIR",
               help="where results go, outside the input"),
        Option(name="levels", is_positional=True, value=Choice(LEVELS), takes=Takes.SEVERAL,
               help="analysis level, one or both"),
    ),
    "options": (
        Option(name="help", aliases=("-h",), takes=Takes.NONE, help="show this text and stop"),
        Option(name="version", takes=Takes.NONE, help="show the program's version and stop"),
        Option(name="report_bug", takes=Takes.NONE,
               help="show versions, limits, the other options and the dataset's shape, without labels or paths, for a "
               "report of a bug, and stop"),
    ),
    "selection": (
        Option(name="participant_label", value=Label("sub"), takes=Takes.SEVERAL, metavar="LABEL",
               help="participants, with or without sub-"),
        Option(name="session_label", value=Label("ses"), takes=Takes.SEVERAL, metavar="LABEL",
               help="sessions, with or without ses-; in their order in time, which acq_time tells where it is there"),
        Option(name="run_label", value=Label("run"), takes=Takes.SEVERAL, metavar="LABEL",
               help="runs, with or without run-"),
        Option(name="task", aliases=("--task-id", "-t"), value=Label("task"), takes=Takes.SEVERAL, metavar="TASK",
               help="tasks, each analysed by itself", otherwise="every task with runs and events, or with maps"),
        Option(name="space", value=Label("space"), metavar="SPACE",
               help="space (MNI152NLin2009cAsym is taken where several exist; fsaverage5, fsLR and other "
               "surfaces; fsnative at the participant level); none: files without space-"),
        Option(name="res", value=Label("res"), metavar="RES",
               help="resolution entity of that space; none: without it"),
        Option(name="den", aliases=("--density",), value=Label("den"), metavar="DEN",
               help="density entity of a surface space (91k, 32k, 10k); none: without it"),
        Option(name="hemi", value=Choice(("L", "R")),
               help="the hemisphere of a surface space that is analysed alone", otherwise="both"),
        Option(name="derivatives", aliases=("-d",), value=FilePath(), takes=Takes.SEVERAL, metavar="PATH",
               help="folders with preprocessed data; at the group level also folders with first-level maps of "
               "SessionFX, FitLins or nilearn", otherwise="what lies in BIDS_DIR/derivatives"),
        Option(name="bids_filter_file", value=FilePath(), metavar="FILE",
               help="JSON: pybids filters under 'bold', 'mask', 'events', 'confounds', 'maps'"),
        Option(name="bids_database_dir", value=FilePath(must_exist=False), metavar="DIR",
               help="keep the database of pybids here and reuse it"),
        Option(name="skip_bids_validation", takes=Takes.NONE,
               help="accept a dataset without a proper dataset_description.json"),
    ),
    "first level": (
        Option(name="contrast", takes=Takes.ONE_REPEATED, metavar="EXPR",
               help="contrast over conditions, 'incongruent - congruent' or 'NAME=EXPR'; or an F test of several, "
               "'F:NAME = EXPR; EXPR'; at the group level it selects maps by name",
               otherwise="every condition against baseline, and the difference where there are two"),
        Option(name="condition_column", takes=Takes.SEVERAL, metavar="COLUMN",
               help="columns of the events whose values are the conditions; several are crossed (face.hit)",
               otherwise="trial_type"),
        Option(name="recode", takes=Takes.SEVERAL, metavar="OLD=NEW",
               help="new names for conditions: one for several merges them, none ('miss=') leaves their events out"),
        Option(name="event_filter", takes=Takes.ONE_REPEATED, metavar="FILTER",
               help="events that are modelled: 'COLUMN=VALUE,VALUE', 'COLUMN!=VALUE', 'COLUMN < NUMBER' (also <=, >, "
               ">=); all filters must hold", otherwise="all"),
        Option(name="duration_column", metavar="COLUMN",
               help="column of the events whose numbers are the durations (s)", otherwise="duration"),
        Option(name="modulator", takes=Takes.ONE_REPEATED, metavar="MODULATOR",
               help="column of the events by whose numbers responses vary: 'rt' (of every condition), 'go: rt' or "
               "'NAME=go: rt - 3'; makes go_x_rt beside go, for --contrast"),
        Option(name="modulator_centering", value=Choice(("run", "none")),
               help="subtract the mean of a modulator over the events of each condition in each run; one with a "
               "constant of its own ('rt - 3') stays as it is"),
        Option(name="model", value=FilePath(must_exist=False), metavar="FILE",
               help="BIDS Stats Model (…_smdl.json), or its name in BIDS_DIR/models: it says contrasts, designs and "
               "what is asked at the group level; other options say the rest"),
        Option(name="model_node", metavar="NAME",
               help="follow the model to this node", otherwise="its last one"),
        Option(name="hrf_model", value=Choice(HRF_MODELS), help="haemodynamic response"),
        Option(name="fir_delays",
               value=Number(largest=1000, unit="volumes", whole=True, reason="no response is as long"),
               takes=Takes.SEVERAL, metavar="DELAY", help="delays of --hrf-model fir, each a column go_delay_DELAY"),
        Option(name="drift_model", value=Choice(("cosine", "polynomial", "none")), help="slow drifts"),
        Option(name="high_pass",
               value=Number(largest=1, unit="Hz", zero=False, reason="faster drifts are the response itself"),
               help="cut-off of the cosine drifts"),
        Option(name="noise_model", value=Choice(("ar1", "ols")), help="temporal noise"),
        Option(name="smoothing_fwhm",
               value=Number(largest=50, unit="mm", reason="wider kernels leave nothing to tell apart in a brain"),
               help="smooth each run", otherwise="not"),
        Option(name="confounds", takes=Takes.SEVERAL, metavar="NAME",
               help="columns, globs ('csf*') or presets: none, motion6, motion12, motion24, compcor, scrub",
               otherwise="motion6 where a confounds file exists"),
        Option(name="fd_threshold",
               value=Number(largest=100, unit="mm", zero=False, reason="no head moves as far"),
               help="a regressor for each volume with a framewise displacement above this", otherwise="none"),
        Option(name="dvars_threshold",
               value=Number(largest=1000, zero=False, reason="no volume differs as much"), metavar="STD_DVARS",
               help="a regressor for each volume with standardised DVARS above this", otherwise="none"),
        Option(name="regressors", value=RUN_PATTERN, metavar="PATTERN",
               help="own regressors: a TSV for each run, from BIDS_DIR or absolute, with {sub}, {ses}, {task}, {run}, "
               "* and ?", otherwise="none"),
        Option(name="signal_scaling", value=Choice(tuple(EFFECT_UNITS)),
               help="effects in percent of each voxel's mean over a run, or of the mean over its voxels and volumes, "
               "or as the image has them"),
        Option(name="fixed_effects", value=Choice(("equal", "precision")),
               help="weights of runs and sessions in an average"),
        Option(name="fixed_effects_dof", value=Choice(("satterthwaite", "sum")),
               help="degrees of freedom of runs and sessions combined; sum as in nilearn"),
        Option(name="keep_run_maps", takes=Takes.NONE, help="also write the maps of every run"),
    ),
    "group level": (
        Option(name="session_contrast", takes=Takes.ONE_REPEATED, metavar="SPEC",
               help="'mean', 'linear', 'quadratic', 'cubic', 'degree-4' (to 9), 'any', a trend over a session "
               "covariate such as 'linear(COVARIATE)', 'ses-02 - ses-01', any weights, or 'NAME=SPEC'; 'each': every "
               "session by itself",
               otherwise="mean, all differences, from three sessions on linear and any"),
        Option(name="strategy", value=STRATEGIES, takes=Takes.SEVERAL, metavar="STRATEGY",
               help=f"one or more of {', '.join(STRATEGY_NAMES)}", otherwise="all but meta"),
        Option(name="subject_effect", value=Choice(("auto", "indicator", "linear", "none")),
               help="how the session-model codes participants"),
        Option(name="mixed_dof", value=Choice(("satterthwaite", "kenward-roger")),
               help="degrees of freedom of the mixed strategy"),
        Option(name="variance", value=Choice(("auto", "pooled", "groups")),
               help="whether summary-statistics takes all participants to vary equally, and marginal in its working "
               "covariance (pooled), or both have a variance for each group (Welch); auto: for each group where "
               "groups are compared or unequal in size"),
        Option(name="session_covariate_effect", value=Choice(("split", "mixture")),
               help="whether session covariates, time included, have an effect within and another one between "
               "participants (split), or one that mixes both (mixture)"),
        Option(name="robust", value=Choice(("none", "huber", "bisquare", "trimmed")),
               help="summary-statistics and marginal count outlying participants less at each voxel (Huber's or "
               "Tukey's bisquare weights), or summary-statistics leaves out the largest and smallest fifth (trimmed); "
               "other strategies count all fully"),
        Option(name="covariates", takes=Takes.SEVERAL, metavar="COLUMN",
               help="columns of participants.tsv: numbers are centred, other values are groups; 'group:age' is the "
               "interaction of two that are named too"),
        Option(name="session_covariates", takes=Takes.SEVERAL, metavar="COLUMN",
               help="columns of the sub-XX_sessions.tsv files to adjust for; one that is time in 'linear(COLUMN)' "
               "adjusts nothing"),
        Option(name="group_contrast", takes=Takes.ONE_REPEATED, metavar="SPEC",
               help="what to ask about the participants for each session contrast: 'intercept', a covariate, "
               "'patient - control', 'NAME=SPEC', or an F test of several, 'F:NAME = a - b; b - c'",
               otherwise="all of these that the covariates allow"),
        Option(name="min_coverage", value=Number(largest=1, zero=False, reason="that many maps there are not"),
               metavar="SHARE",
               help="answer voxels that at least this share of the maps has, each with the design of those who have "
               "it; 1: only voxels that all maps have",
               otherwise="0.7; 1 with session covariates, --robust, variances or F tests over conditions"),
        Option(name="alpha", value=Probability(), metavar="ALPHA", help="error rate of the thresholds"),
        Option(name="correction", value=Choice(("fdr", "bonferroni", "none")), help="for many voxels, two-sided"),
        Option(name="cluster_threshold",
               value=Number(largest=10**7, unit="voxels", whole=True, reason="more than an image has"),
               help="smallest cluster in the tables; of surfaces in vertices, as nilearn counts"),
        Option(name="atlas", value=FilePath(), takes=Takes.ONE_REPEATED, metavar="FILE",
               help="answer every session contrast in the regions of this image of labels, in the space of the maps, "
               "and name those of peaks; the participant level writes tables of regions. For surfaces a .dlabel.nii "
               "file, or the .label.gii or .annot file of one hemisphere, with the other's beside it",
               otherwise="voxels and coordinates only"),
        Option(name="atlas_labels", value=FilePath(), takes=Takes.ONE_REPEATED, metavar="FILE",
               help="its table with columns 'index' and 'name', or JSON; of several, in the order of --atlas",
               otherwise="the names in a label file, or the .tsv, or .json, beside the atlas"),
        Option(name="permutations",
               value=Number(largest=10**6, whole=True, reason="p to a millionth, and weeks of work"), metavar="N",
               help="family-wise p values of the summary-statistics and marginal strategies from N resamplings of "
               "the participants (voxels, cluster size and mass, TFCE)", otherwise="none"),
        Option(name="equivalence",
               value=Number(largest=1000, unit="percent signal change", zero=False, reason="no response is as large"),
               metavar="BOUND",
               help="also show where effects are practically zero, within plus or minus BOUND (per unit of the "
               "covariate for 'linear(COVARIATE)' and numeric covariates): two one-sided tests; choose BOUND before "
               "you see results", otherwise="not"),
        Option(name="bayes_factor",
               value=Number(largest=10, zero=False, reason="effects of ten standard deviations need no test"),
               takes=Takes.AT_MOST_ONE, alone=math.sqrt(0.5), metavar="SCALE",
               help="also write Bayes factors of t tests over participants, for an effect against none; SCALE is "
               "that of the Cauchy prior on the effect in standard deviations of participants, 0.707 where none is "
               "given", otherwise="not"),
        Option(name="calibrate",
               value=Number(largest=10**6, whole=True, reason="with so many a rate of 5 % is known to within 0.05 %"),
               metavar="N",
               help="simulate N null voxels from your own maps: false positives and power of every strategy, which "
               "the verdict then reads", otherwise="not"),
        Option(name="random_seed",
               value=Number(largest=2**63 - 1, whole=True, reason="the largest whole number of a TOML file"),
               metavar="N", help="of permutations and simulated voxels"),
    ),
    "execution": (
        Option(name="nprocs", aliases=("--n-procs", "--n-cpus"), value=PROCESSORS, metavar="N",
               help="runs at a time, of one participant or several", otherwise="all processors"),
        Option(name="omp_nthreads", value=PROCESSORS, metavar="N",
               help="threads of the linear algebra in each process"),
        Option(name="mem_gb", value=Number(largest=10**6, unit="GB", zero=False, reason="more than a machine has"),
               help="memory to stay within: fewer runs at a time", otherwise="what container and machine allow"),
        Option(name="executor", value=Choice(("local", "dask")),
               help="where runs and blocks of voxels are computed: on this machine, or by workers of a Dask "
               "cluster with the same installation and shared folders"),
        Option(name="scheduler", metavar="ADDRESS",
               help="of the Dask cluster: tcp://HOST:PORT of a running scheduler; or slurm, to submit --nprocs "
               "workers as jobs of --mem-gb each (further options: Dask's jobqueue.slurm)"),
        Option(name="work_dir", aliases=("-w",), value=FilePath(must_exist=False), metavar="DIR",
               help="where the group level keeps the maps of all participants, also for later calls",
               otherwise="OUTPUT_DIR"),
        Option(name="force", takes=Takes.NONE, help="redo what is finished already"),
        Option(name="dry_run", takes=Takes.NONE, help="print what would be done, then stop"),
        Option(name="reports_only", takes=Takes.NONE, help="draw the reports anew from finished maps"),
        Option(name="no_report", takes=Takes.NONE, help="write maps and tables only"),
        Option(name="config_file", value=FilePath(), metavar="FILE",
               help="TOML file with these options; the command line wins"),
        Option(name="config_over_defaults", takes=Takes.NONE,
               help="an option given with its default value leaves the choice to --config-file: for platforms, "
               "which pass every default"),
        Option(name="stop_on_first_crash", takes=Takes.NONE, help="do not go on when a participant fails"),
        Option(name="verbose", aliases=("-v",), takes=Takes.NONE_REPEATED, help="more messages; with tracebacks"),
    ),
}  # fmt: skip

OPTIONS = {option.name: option for options in SECTIONS.values() for option in options}
# by each spelling
BY_FLAG = {flag: option for option in OPTIONS.values() if not option.is_positional for flag in option.flags}


def choices_of(name: str) -> tuple[str, ...]:
    """Give the names among which an option chooses."""
    value = OPTIONS[name].value
    return value.names if isinstance(value, Choice) else ()
