"""The exceptions of Fairlead: only the outside failing, never a decision.

::

    FairleadError
    ├── UnreadableInput   what a person or a file gave us cannot be read      (exit 2)
    ├── Unreachable       a server or database does not answer in time        (exit 3)
    ├── NotFound          the thing that was named does not exist             (exit 4)
    ├── Forbidden         the server refuses us                               (exit 5)
    ├── BooksDoNotVerify  the ledger contradicts its journal or its chain     (exit 7)
    └── MissingExtra      an optional dependency is not installed             (exit 2)

A refusal to place a gang is a value (`fairlead.model.reasons`), and a bug of ours is an `assert`.
"""

from __future__ import annotations


class FairleadError(Exception):
    """Anything outside that failed; `exit_code` is what a command line ends with."""

    exit_code = 3


class UnreadableInput(FairleadError):
    """Input that cannot be read; the text names the field and the mend."""

    exit_code = 2


class Unreachable(FairleadError):
    """A server or database that does not answer within its deadline."""

    exit_code = 3


class NotFound(FairleadError):
    """The named thing does not exist."""

    exit_code = 4


class Forbidden(FairleadError):
    """The server refused us; the text names the right that is missing."""

    exit_code = 5


class BooksDoNotVerify(FairleadError):
    """The ledger contradicts itself; the text names the first bad entry."""

    exit_code = 7


class MissingExtra(FairleadError):
    """An optional dependency is missing; the text has the command that installs it."""

    exit_code = 2
