"""The lists that an alias file includes, and those that they include, looked at for `newaliases`.

Called in a thread, as the account that delivery reads them as, and they are read the way delivery does:
regular files alone, in the grammar of the alias file. Each is read once, whichever ways lead to it, and all
of them together are bounded.

When things fail: what is wrong with a list is a mistake in the text that is returned; one that cannot be read
(it may be a user's, who has closed it) is a warning, since it may be there when mail comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field

from postoffice.directory.aliases import MOST_LISTS, SYSTEM, list_lines
from postoffice.directory.targets import Include
from postoffice.watched import LIMIT_IN_THREAD, Mistake, read

_MOST_TOLD = 20


@define
class Findings:
    """What there is to say about lists, each with file and line: what is wrong, and what may be."""

    mistakes: list[str] = field(factory=list)
    warnings: list[str] = field(factory=list)
    # The lists that were met, and where each was first.
    _known: dict[str, str] = field(factory=dict, init=False)
    _waiting: deque[str] = field(factory=deque, init=False)

    def look(self, file: str, included: Sequence[tuple[int, str]], octets: int) -> None:
        """Look at the lists that `file` includes, as long as they have no more octets than this."""
        self._meet(file, included)
        while self._waiting and len(self.mistakes) + len(self.warnings) < _MOST_TOLD:
            path = self._waiting.popleft()
            where = self._known[path]
            try:
                data = read(path, octets)[1]
                octets -= len(data)
                for line, targets in list_lines(data, SYSTEM):
                    self._meet(path, ((line, one.path) for one in targets if isinstance(one, Include)))
            except Mistake as mistake:
                self.mistakes.append(f"{path}:{mistake.line}: {mistake}; {where} includes it")
            except OSError as error:
                self.warnings.append(f"{where}: {path}: {error.strerror}; mail for this list waits")

    def _meet(self, file: str, included: Iterable[tuple[int, str]]) -> None:
        for line, path in included:
            if path not in self._known and len(self._known) < MOST_LISTS:
                self._known[path] = f"{file}:{line}"
                self._waiting.append(path)
                if len(self._known) == MOST_LISTS:
                    self.warnings.append(f"{file}:{line}: {MOST_LISTS} lists; no more are looked at")


def check_lists(file: str, included: Sequence[tuple[int, str]], octets: int = LIMIT_IN_THREAD) -> Findings:
    """What there is to say of the lists that `file` includes, given with their lines."""
    found = Findings()
    found.look(file, included, octets)
    return found
