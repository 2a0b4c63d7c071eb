"""Small slips put into a copy of the source, one at a time, to see that the tests notice each of them.

Slips that a person could make (a sign, an index, a transpose, the wrong degrees of freedom) over what makes the
numbers, the names and the decisions of what is finished. Every one names the tests that should fail with it.

    python tools/mutants.py              all
    python tools/mutants.py glm-dof ...  some

Exit code 1 where a slip survives, 2 where its text is no longer in the source or its tests do not run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SECONDS = 300.0
CAUGHT, SURVIVED, BROKEN = "caught", "SURVIVED", "BROKEN"
_NOTICED = 1  # pytest's exit code where tests failed; more than 1 means that they could not be run
# a plugin of pytest: that a test fails is all that is to be found out, not the smallest example with which it does
_UNSHRUNK = """
from hypothesis import Phase, settings
settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
settings.load_profile("unshrunk")
"""


class Mutant(NamedTuple):
    """One slip."""

    name: str
    path: str  # of the module, below src/sessionfx
    old: str  # in the module once
    new: str  # what stands there instead
    tests: str  # arguments of pytest


_GLM = "participant/glm.py"
_MODULATORS = "participant/modulators.py"
_DESIGN = "participant/design.py"
_FIXED = "statistics/fixed_effects.py"
_ROBUST = "statistics/cluster_robust.py"
_INTERCEPT = "statistics/random_intercept.py"
_VALUES = "group/strategies/participant_values.py"
_RECORDS = "tasks/records.py"
_NAMES = "bids/names.py"

MUTANTS = (
    # events
    Mutant("centring-before-scaling", _MODULATORS, "heights -= heights.mean()", "heights -= values.mean()",
           "tests/unit/test_modulators.py -k two_modulators"),
    Mutant("centring-over-own-constants", _MODULATORS, "modulator.constant == 0:", "modulator.constant <= 0:",
           "tests/unit/test_modulators.py -k constant"),
    Mutant("modulated-over-the-condition", _MODULATORS, "modulation=1.0)", "modulation=0.0)",
           "tests/unit/test_modulators.py -k every_condition"),
    Mutant("missing-modulator-unasked", _MODULATORS, "condition in asked", "condition not in asked",
           "tests/unit/test_modulators.py -k missing"),
    Mutant("one-filter-enough", "participant/conditions.py", "table = table[[asked.keeps", "kept = table[[asked.keeps",
           "tests/unit/test_modulators.py -k filter"),
    # the fit of a run
    Mutant("glm-dof", _GLM, "self.basis.shape[0] - self.basis.shape[1]", "self.basis.shape[0] - len(self.contrasts)",
           "tests/unit/test_glm.py -k blocks"),
    Mutant("glm-rounding-of-rho", _GLM, "np.trunc(rho * AR_BINS)", "np.floor(rho * AR_BINS)",
           "tests/unit/test_glm.py -k any_design"),
    Mutant("glm-terms-of-the-autocovariance", _GLM, "left * (n_volumes - 1)", "left * n_volumes",
           "tests/unit/test_glm.py -k blocks"),
    Mutant("glm-contrast-not-transposed", _GLM, "np.linalg.solve(triangle.T, of_kept / lengths)",
           "np.linalg.solve(triangle, of_kept / lengths)", "tests/unit/test_glm.py -k blocks"),
    Mutant("glm-turn-transposed", _GLM, "of_kept / lengths) @ turn", "of_kept / lengths) @ turn.T",
           "tests/unit/test_glm.py -k blocks"),
    Mutant("glm-covariance-of-a-row-with-itself", _GLM, "correction * (along_row[a] * along_row[b])",
           "correction * (along_row[a] * along_row[a])", "tests/unit/test_f_tests.py -k nilearn"),
    Mutant("wald-weights-not-squared", _FIXED, "weight**2 * test.covariance", "abs(weight) * test.covariance",
           "tests/unit/test_f_tests.py -k tested_by_its_covariance"),
    Mutant("johansen-without-its-correction", "statistics/unequal_variances.py",
           "(n_rows + 2 * a - 6 * a / (n_rows + 2))", "n_rows",
           "tests/group/test_f_over_participants.py -k analysis_of_variance"),
    Mutant("wald-dof-by-traces", _FIXED, '"vst,vts->v"', '"vss,vtt->v"', "tests/unit/test_f_tests.py -k nominal"),
    Mutant("glm-mean-below-one", _GLM, "np.maximum(signal.mean(axis=0) if mean is None else mean, 1)",
           "signal.mean(axis=0) if mean is None else mean",
           "tests/unit/test_glm.py -k single_precision"),
    Mutant("design-columns-of-conditions", _DESIGN, "len(events.conditions) * len(response_suffixes(model))",
           "len(events.conditions)",
           "tests/unit/test_estimability.py -k last_bit"),
    Mutant("design-derivatives-not-orthogonal", _DESIGN, "made = orthogonalize(sampled)", "made = sampled",
           "tests/unit/test_timing.py -k way_for_irregular"),
    Mutant("design-drifts-half-a-volume-off", _DESIGN, "times - times[0] + last / 2", "times - times[0] + last",
           "tests/unit/test_timing.py -k way_for_irregular"),
    Mutant("run-dof-of-redundant-columns", "participant/run.py", "float(n_volumes - len(kept))",
           "float(n_volumes - matrix.shape[1])", "tests/unit/test_run_level.py -k cost_no_degrees"),
    # fixed effects
    Mutant("fixed-effects-weights-not-squared", _FIXED, "weight**2 * estimate.variance",
           "abs(weight) * estimate.variance", "tests/unit/test_fixed_effects.py -k nilearns"),
    Mutant("fixed-effects-negative-weights", _FIXED, "[(estimate, weight) for estimate, weight in zip(inputs, weights,",
           "[(estimate, max(weight, 0)) for estimate, weight in zip(inputs, weights,",
           "tests/unit/test_fixed_effects.py -k difference_of_sessions"),
    Mutant("fixed-effects-shares-not-squared", _FIXED, "inverse += share**2 / dof", "inverse += share / dof",
           "tests/unit/test_fixed_effects.py -k 'one_step or equal_variances'"),
    Mutant("fixed-effects-precision", _FIXED, "Estimate(effect / total, 1 / total, dof)",
           "Estimate(effect / total, len(inputs) / total, dof)", "tests/unit/test_fixed_effects.py -k nilearns"),
    Mutant("mean-over-tasks", "participant/analysis.py", "combine_maps(there, [1.0] * len(there)",
           "combine_maps(there, [1 / len(there)] * len(there)", "tests/program/test_over_tasks.py -k sum_of"),
    # strategies
    Mutant("ols-dof", "statistics/ols.py", "dof = len(design) - basis.shape[1]", "dof = len(design) - design.shape[1]",
           "tests/unit/test_statistics.py"),
    Mutant("cr2-root", "statistics/linear_algebra.py", "(vectors[:, kept] / np.sqrt(eigenvalues[kept]))",
           "(vectors[:, kept] / eigenvalues[kept])", "tests/unit/test_cluster_robust.py -k written_out"),
    Mutant("working-variance-of-a-group", _ROBUST, "/ np.sqrt(scales)[owners, None]",
           "* np.sqrt(scales)[owners, None]", "tests/group/test_unequal_participants.py"),
    Mutant("htz-scale", _ROBUST, "FTest(dof / (eta * q)", "FTest(dof / eta",
           "tests/unit/test_cluster_robust.py -k wald_test_is_that"),
    Mutant("left-out-participant-counts", "statistics/cluster_influence.py", "counts[kind] -= 1", "counts[kind] -= 0",
           "tests/unit/test_cluster_influence.py -k new_fit"),
    Mutant("left-out-roots", "statistics/cluster_influence.py", "factor *= (2 * power - 1) / (2 * power)",
           "factor *= 1 / (2 * power)", "tests/unit/test_cluster_influence.py -k many"),
    Mutant("dof-by-units-of-conditions", "statistics/participant_spread.py",
           "if self.n_responses > 1:\n                standard",
           "if self.n_responses > 9:\n                standard", "tests/group/test_f_conditions.py -k written"),
    Mutant("reml-hessian", _INTERCEPT, "m * second - penalty_2", "m * second + penalty_2",
           "tests/group/test_repeated_measures.py -k numerical_hessian"),
    Mutant("kenward-roger-dof", _INTERCEPT, "2 * relative**2 / squared", "2 * adjusted**2 / squared",
           "tests/unit/test_answers_of_r.py -k pbkrtests"),
    Mutant("order-of-products", "group/strategies/designs.py", "np.kron(over_sessions, group_weights)",
           "np.kron(group_weights, over_sessions)", "tests/unit/test_answers_of_r.py -k session_covariate_is_lm"),
    Mutant("variance-of-a-difference", _VALUES, "self.combination.power(2) @ variances",
           "abs(self.combination) @ variances", "tests/unit/test_meta_analysis.py -k combined_sessions"),
    Mutant("greenhouse-geisser-numerator", "group/strategies/session_model.py",
           "FTest(f, epsilon * numerator, epsilon * dof)", "FTest(f, numerator, epsilon * dof)",
           "tests/unit/test_multivariate.py -k analysis_of_variance"),
    # what is finished
    Mutant("finished-if-one-file-is-there", _RECORDS, "return all(self._is_intact", "return any(self._is_intact",
           "tests/program/test_output_faults.py -k files_are_whole"),
    Mutant("records-of-other-calls-lost", _RECORDS,
           "self._content = self._read()\n            self._put_aside([*outdated", "self._put_aside([*outdated",
           "tests/program/test_output_faults.py -k same_time"),
    Mutant("shared-files-removed", _RECORDS, "*declared} - set(self.files(self.finished()))", "*declared}",
           "tests/program/test_output_faults.py -k needs_too"),
    Mutant("outdated-by-what-is-not-asked-for", _RECORDS, "now.get(made_from, found) != found",
           "now.get(made_from) != found", "tests/program/test_output_faults.py -k made_from_something_else"),
    Mutant("reports-only-does-all", "tasks/loop.py", 'execution.reports_only and task.kind == "page"',
           'execution.reports_only or task.kind == "page"', "tests/program/test_output_faults.py -k done_again_only"),
    Mutant("parts-of-finished-work-computed", "tasks/loop.py", 'task.kind == "part" and task.name in needed',
           'task.kind == "part" or task.name in needed', "tests/program/test_output_faults.py -k done_again_only"),
    Mutant("temporary-files-stay", "bids/writing.py",
           "    except BaseException:\n        discard(collection)\n        raise\n", "",
           "tests/program/test_output_faults.py -k written_together"),
    # names and what users ask
    Mutant("entities-out-of-order", _NAMES, '"contrast", "sessions", "covariate", "strategy", "stat"',
           '"contrast", "sessions", "strategy", "covariate", "stat"', "tests/unit/test_naming.py"),
    Mutant("camel-case", "wording.py", "piece[0].upper() + piece[1:] if label", "piece.capitalize() if label",
           "tests/unit/test_naming.py -k camel"),
    Mutant("mean-over-missing-sessions", "ask/session_contrasts.py", "1 / len(present)", "1 / len(self.sessions)",
           "tests/unit/test_session_contrasts.py"),
    Mutant("levels-the-wrong-way-round", "ask/covariates.py", 'f"{later} - {earlier}"', 'f"{earlier} - {later}"',
           "tests/unit/test_covariates.py -k default"),
)  # fmt: skip


def try_mutant(mutant: Mutant) -> tuple[str, str]:
    """Run the tests of one slip against a copy of the source; return verdict and detail."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(root / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        module = source / "sessionfx" / mutant.path
        text = module.read_text() if module.exists() else ""
        if text.count(mutant.old) != 1:
            return BROKEN, f"{text.count(mutant.old)} times in {mutant.path}: {mutant.old!r}"
        module.write_text(text.replace(mutant.old, mutant.new))
        (Path(folder) / "unshrunk.py").write_text(_UNSHRUNK)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "unshrunk"]
        command += shlex.split(mutant.tests)
        environment = os.environ | {"PYTHONPATH": f"{source}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - the commands above
                command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return BROKEN, f"longer than {SECONDS:g} s"
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
    if done.returncode > _NOTICED:
        return BROKEN, last
    return (CAUGHT if done.returncode == _NOTICED else SURVIVED), last


def main() -> int:
    """Try the slips that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the slips to try [all]")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no slip is called {', '.join(sorted(unknown))}")
    verdicts = []
    for mutant in MUTANTS:
        if mutant.name in (options.names or [mutant.name]):
            verdict, detail = try_mutant(mutant)
            verdicts.append(verdict)
            print(f"{verdict:9} {mutant.name}: {detail}", flush=True)
    print(f"{verdicts.count(CAUGHT)} of {len(verdicts)} caught")
    return 2 if BROKEN in verdicts else int(SURVIVED in verdicts)


if __name__ == "__main__":
    sys.exit(main())
