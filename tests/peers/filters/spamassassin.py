"""SpamAssassin: its daemon with rules about words in the subject, and spamass-milter, which asks it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.peers.filters.milter import Milter
from tests.support import program

SPAM = "SPAMMYTEST"
"""A word in the subject that scores more than the filter lets pass."""


class Spamd(Milter):
    """spamd without network tests: SPAM in the subject scores 20. `rules` are more of them, its language."""

    def __init__(self, directory: Path, rules: Iterable[str] = ()) -> None:
        self._program = program("spamd")
        super().__init__(directory)
        for name in ("site", "home"):
            (self.directory / name).mkdir(exist_ok=True)
        self.write("site/init.pre", ["loadplugin Mail::SpamAssassin::Plugin::Check"])
        self.write(
            "site/local.cf",
            [
                f"header SUBJ_TEST Subject =~ /{SPAM}/",
                "score SUBJ_TEST 20",
                "use_bayes 0",
                "dns_available no",
                *rules,
            ],
        )
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground, with one child."""
        return [
            self._program,
            "-L",
            "-x",
            "-m",
            "1",
            f"--socketpath={self.socket}",
            "--socketmode=0666",
            f"--siteconfigpath={self.directory}/site",
            f"-H{self.directory}/home",
            "-s",
            "stderr",
        ]

    def ready(self) -> bool:
        """Says so, once its child can be asked."""
        return "server successfully spawned child process" in self.log()


class SpamassMilter(Milter):
    """spamass-milter, which refuses what scores 15 and more, and marks the rest."""

    def __init__(self, directory: Path, spamd: Spamd) -> None:
        self._program = program("spamass-milter")
        self._spamd = spamd.socket
        super().__init__(directory)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground, with a socket that everybody may use."""
        return self.opened(self._program, "-p", self.socket, "-r", "15", "--", "-U", self._spamd)
