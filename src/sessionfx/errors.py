"""What can go wrong, as one class per exit code of the program.

Every message is one plain paragraph: what is wrong, where (file, column, label), and what to do about it. The first
line of a class says what its exit code means, `remedy` what a user does: `--help`, the descriptor and the reference
are made from these.
"""

from __future__ import annotations

import errno
import traceback

from sessionfx.wording import one_paragraph, sentence

# Ended by a signal, as shells report it: 128 and the signal's number
INTERRUPTED = 130
NO_READER = 141  # nobody reads standard output any more
# What only happens to those who write
_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


class SessionFXError(Exception):
    """A problem the user can act on; printed without a traceback."""

    exit_code = 1
    remedy = ""

    def __init__(self, message: str) -> None:
        # one paragraph, also where it quotes text with line breaks, or characters that a terminal would obey
        super().__init__(one_paragraph(message))


class ParticipantError(SessionFXError):
    """Some participant failed (the others are finished and kept), or one of several group contrasts."""

    remedy = "read the message or `logs/sub-*_crash.txt`, correct, give the same command again"


class CommandLineError(SessionFXError):
    """The command line cannot be used."""

    exit_code = 2
    remedy = "the message names the option"


class DatasetError(SessionFXError):
    """The input is not a usable BIDS dataset, or has no preprocessed runs."""

    exit_code = 16
    remedy = "name the right folder, or run fMRIPrep"


class LevelError(SessionFXError):
    """The level is not possible: no first-level maps, one participant only, grids that differ."""

    exit_code = 17
    remedy = "run the participant level, or choose maps"


class NothingMatchesError(SessionFXError):
    """A filter (participant, session, task, space, …) matched nothing."""

    exit_code = 18
    remedy = "the message lists what exists"


class ExecutorError(SessionFXError):
    """The cluster is not usable: no Dask, scheduler not reached or lost, workers that differ or lack the folders."""

    exit_code = 69
    remedy = "the message says which"


class ProgramFaultError(SessionFXError):
    """The program itself is at fault."""

    exit_code = 70
    remedy = "report it with what `--report-bug` prints, and the traceback of `-v`"


class OutputError(SessionFXError):
    """The output (or work) folder cannot be written, or lies in the input."""

    exit_code = 73
    remedy = "choose another"


# one for each exit code
KINDS = (
    ParticipantError, CommandLineError, DatasetError, LevelError, NothingMatchesError, ExecutorError,
    ProgramFaultError, OutputError,
)  # fmt: skip


def meaning(kind: type[SessionFXError]) -> str:
    """Say what an exit code means, as a sentence."""
    return (kind.__doc__ or kind.__name__).splitlines()[0]


class NotEstimableError(Exception):
    """A strategy cannot answer a session contrast with this design; the text is a sentence for the report."""


def in_words(error: BaseException) -> str:
    """Say in one sentence, without a full stop, what an error of the system or of a library means.

    It names the file where that is known.
    """
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, RecursionError):
        return "something is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename} " if error.filename is not None else ""
        doing = "cannot be written" if error.errno in _WRITING else "cannot be used"
        return f"{where or 'a file or folder '}{doing} ({error.strerror})"
    return one_paragraph(f"{type(error).__name__}: {error}").rstrip(". ")


def as_refusal(error: Exception, output_dir: str | None = None) -> SessionFXError:
    """Turn what nobody foresaw into a refusal: the last net, below the sentences of the modules concerned.

    What cannot be used in the output folder, as it was given, is output.
    """
    said = sentence(in_words(error))
    if isinstance(error, MemoryError):
        return LevelError(f"{said} Give the program more (docker run --memory, sbatch --mem), or a smaller --nprocs.")
    if isinstance(error, OSError):
        name = str(error.filename or "")
        if error.errno in _WRITING or (output_dir and name.startswith(output_dir)):
            return OutputError(f"{said} Check space and permissions, then give the same command again.")
        return DatasetError(f"{said} Check the file and its permissions, then give the same command again.")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (in {frames[-1].name}, line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return ProgramFaultError(
        f"A fault of the program stopped it{place}: {said} Please report it with the traceback that -v prints. "
        "What was finished is kept."
    )


def stops_all_writing(error: BaseException) -> bool:
    """Whether an error of the system says that no other file could be written either."""
    return isinstance(error, OSError) and error.errno in _WRITING
