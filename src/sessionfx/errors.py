"""What can go wrong, as one class per exit code of the program.

Every message is one plain paragraph: what is wrong, where (file, column, label), and what to do about it.
"""

# Ended by a signal, as shells report it: 128 and the signal's number
INTERRUPTED = 130
TERMINATED = 143


class SessionFXError(Exception):
    """A problem the user can act on; printed without a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        # one paragraph, also where it quotes text with line breaks, or characters that a terminal would obey
        super().__init__("".join(one if one.isprintable() else " " for one in " ".join(message.splitlines())))


class ParticipantError(SessionFXError):
    """The data of one participant cannot be analysed; the others go on."""

    exit_code = 1


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


class OutputError(SessionFXError):
    """The output folder cannot be written."""

    exit_code = 73


class NotEstimableError(Exception):
    """A strategy cannot answer a session contrast with this design; the text is a sentence for the report."""
