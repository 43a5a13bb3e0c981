"""rspamd, as its proxy worker filters letters: every action of it by a word in the subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.filters.milter import Milter
from tests.peers.peer import HOST, free_port, text_of
from tests.support import program

WORDS: Mapping[str, str] = {
    "REJECTME": "reject",
    "MARKME": "add header",
    "REWRITEME": "rewrite subject",
    "SOFTME": "soft reject",
    "GREYME": "greylist",
    "HOLDME": "quarantine",
    "DROPME": "discard",
}
"""Words in a subject, and the action that each brings about."""

_RULES = """
for word, action in pairs({%s}) do
  rspamd_config:register_symbol({
    name = "WORD_" .. word,
    type = "normal",
    score = 0.1,
    callback = function(task)
      local subject = task:get_header("Subject") or ""
      if subject:find(word, 1, true) then
        task:insert_result("WORD_" .. word, 1.0)
        task:set_pre_result(action, "the subject says " .. word)
      end
    end
  })
end
"""


class Rspamd(Milter):
    """rspamd with its proxy worker."""

    patience = 120.0

    def __init__(self, directory: Path) -> None:
        self._program = program("rspamd")
        super().__init__(directory, free_port())
        words = ", ".join(f'{word} = "{action}"' for word, action in WORDS.items())
        self.write("words.lua", [_RULES % words])
        # Its own list takes seconds to read.
        self.write("tld.dat", ["com", "org", "test"])
        inner = self.directory / "inner"
        config = _CONFIG.format(directory=self.directory, host=HOST, port=self.port, inner=inner)
        self.write("rspamd.conf", [config])
        self.start()

    def command(self) -> Sequence[str | Path]:
        """In the foreground."""
        variables = [f"--var={name}={self.directory}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        return [self._program, "-f", "-i", *variables, "-c", self.directory / "rspamd.conf"]

    def log(self) -> str:
        """What it said before there was a log, then the log."""
        return super().log() + text_of(self.directory / "rspamd.log")


_CONFIG = """
options {{
  pidfile = "{directory}/rspamd.pid";
  tempdir = "{directory}";
  hs_cache_dir = "{directory}";
  control_socket = "{directory}/control mode=0600";
  cache_file = "{directory}/symbols.cache";
  url_tld = "{directory}/tld.dat";
  filters = "";
  local_addrs = [];
  explicit_modules = [];
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{directory}/rspamd.log"; level = "info"; }}
actions {{ reject = 100; "add header" = 6; greylist = null; quarantine = 1000; discard = 2000; }}
worker "normal" {{ bind_socket = "{inner} mode=0666"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "{host}:{port}";
  milter = yes;
  count = 1;
  timeout = 60s;
  quarantine_on_reject = false;
  upstream "local" {{ default = yes; hosts = "{inner}"; }}
}}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{
  use = ["x-spamd-bar", "x-spam-level", "x-spam-status", "authentication-results"];
  skip_local = false;
  skip_authenticated = false;
}}
lua = "{directory}/words.lua";
"""
