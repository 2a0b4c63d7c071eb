"""What can go wrong, as one class per exit code of the program.

Every message is one plain paragraph: what is wrong, where (file, column, label), and what to do about it.
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

    def __init__(self, message: str) -> None:
        # one paragraph, also where it quotes text with line breaks, or characters that a terminal would obey
        super().__init__(one_paragraph(message))


class ParticipantError(SessionFXError):
    """The data of one participant cannot be analysed; the others go on."""


class CommandLineError(SessionFXError):
    """An option has a value that cannot be used."""

    exit_code = 2


class DatasetError(SessionFXError):
    """The input is not a usable BIDS dataset."""

    exit_code = 16


class LevelError(SessionFXError):
    """The analysis level asked for is not possible with what there is."""

    exit_code = 17


class NothingMatchesError(SessionFXError):
    """A filter (participant, session, task, space, …) matched nothing."""

    exit_code = 18


class ExecutorError(SessionFXError):
    """The cluster that should do the work is not usable."""

    exit_code = 69


class ProgramFaultError(SessionFXError):
    """The program itself is at fault."""

    exit_code = 70


class OutputError(SessionFXError):
    """The output folder cannot be written."""

    exit_code = 73


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
