"""Programs people send mail with: each is told a `Way` to go, and hands in one letter as it stands.

A letter comes with LF line ends. What the program sent for it is returned, again with LF; but git send-email
writes a header of its own. A program that does not get its letter in raises `AssertionError` with
what it said.
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Literal

from attrs import frozen

from tests.peers import HOST, smtp_source
from tests.support import need, program

PATIENCE = 120


@frozen
class Account:
    """Who logs in, and by which mechanism."""

    name: str
    password: str
    mechanism: Literal["LOGIN", "PLAIN"] = "PLAIN"


@frozen
class Way:
    """A port of ours, how the session is encrypted, and who logs in.

    `trust` is a file with the certificate that the client is to trust, and no other.
    """

    port: int
    tls: Literal["", "starttls", "smtps"] = ""
    trust: Path | None = None
    account: Account | None = None


Send = Callable[[Way, str, Sequence[str], bytes, Path], bytes]
"""The way, the sender, the recipients, the letter, a directory for files: what was sent."""


def run(words: Sequence[str | Path], data: bytes = b"", **options: str) -> str:
    """What a program says that ends with 0. `options` are added to its environment."""
    done = subprocess.run(
        words,
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, **options},
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {said[-4000:]}"
    return said


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """A context of Python's that trusts this one, made in a plainer way than Python 3.13 insists on."""
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def by_smtplib(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """Python's smtplib."""
    context = trusting(way.trust)
    if way.tls == "smtps":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            HOST, way.port, local_hostname="lib.far.test", timeout=PATIENCE, context=context
        )
    else:
        client = smtplib.SMTP(HOST, way.port, local_hostname="lib.far.test", timeout=PATIENCE)
    with client:
        if way.tls == "starttls":
            client.starttls(context=context)
        if way.account:
            client.user, client.password = way.account.name, way.account.password
            client.ehlo_or_helo_if_needed()
            challenge = getattr(client, f"auth_{way.account.mechanism.lower()}")
            client.auth(way.account.mechanism, challenge)
        options = [] if letter.isascii() else ["BODY=8BITMIME"]
        if not "".join([sender, *recipients]).isascii():
            options.append("SMTPUTF8")
        refused = client.sendmail(sender, recipients, letter.replace(b"\n", b"\r\n"), options)
    assert refused == {}, refused
    return letter


def by_swaks(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """swaks, which ends the last line itself; a letter of one line it would take for the name of a file."""
    file = scratch / "letter"
    as_it_stands = letter.count(b"\n") == 1
    file.write_bytes(letter[:-1] + b"\r\n.\r\n" if as_it_stands else letter[:-1])
    words = [program("swaks"), "--server", HOST, "--port", str(way.port), "--helo", "swaks.far.test"]
    words += ["--from", sender, "--to", ",".join(recipients), "--data", f"@{file}", "--suppress-data"]
    words += ["--no-data-fixup"] * as_it_stands + ["--timeout", str(PATIENCE)]
    if way.tls:
        words += [
            "-tls" if way.tls == "starttls" else "-tlsc",
            "--tls-verify",
            "--tls-ca-path",
            str(way.trust),
        ]
    if way.account:
        words += ["--auth", way.account.mechanism, "--auth-user", way.account.name]
        words += ["--auth-password", way.account.password]
    run(words)
    return letter


def by_curl(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """curl, to which the letter is a file with CRLF line ends."""
    file = scratch / "letter"
    file.write_bytes(letter.replace(b"\n", b"\r\n"))
    words = [program("curl"), "--silent", "--show-error", "--max-time", str(PATIENCE), "--noproxy", "*"]
    words += ["--url", f"{'smtps' if way.tls == 'smtps' else 'smtp'}://{HOST}:{way.port}/curl.far.test"]
    words += ["--mail-from", sender, "--upload-file", str(file)]
    for recipient in recipients:
        words += ["--mail-rcpt", recipient]
    if way.tls:
        words += ["--ssl-reqd", "--cacert", str(way.trust)]
    if way.account:
        words += ["--user", f"{way.account.name}:{way.account.password}"]
        words += ["--login-options", f"AUTH={way.account.mechanism}"]
    run(words)
    return letter


def by_msmtp(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """msmtp, told to add nothing."""
    lines = [f"host {HOST}", f"port {way.port}", "domain msmtp.far.test", f"from {sender}"]
    lines += ["set_from_header off", "set_date_header off", f"timeout {PATIENCE}"]
    if way.tls:
        lines += ["tls on", f"tls_starttls {'on' if way.tls == 'starttls' else 'off'}"]
        lines += [f"tls_trust_file {way.trust}"]
    if way.account:
        lines += [f"auth {way.account.mechanism.lower()}", f"user {way.account.name}"]
        lines += [f'password "{way.account.password}"']
    file = scratch / "msmtprc"
    file.write_text("".join(f"{line}\n" for line in ("defaults", *lines, "account default")))
    file.chmod(0o600)
    run([program("msmtp"), f"--file={file}", "--", *recipients], letter)
    return letter


def by_smtp_source(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """Postfix's smtp-source, which adds an empty line and knows neither TLS nor AUTH."""
    file = scratch / "letter"
    file.write_bytes(letter)
    done = smtp_source(
        way.port,
        sender=sender,
        recipient=recipients[0],
        length=None,
        timeout=PATIENCE,
        arguments=["-F", str(file)],
    )
    assert done.status == 0, done.stderr
    return letter + b"\n"


def by_git(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """git send-email, which writes the header anew."""
    need("git-send-email")
    file = scratch / "0001-letter.patch"
    # An author who is not the sender would be named in the body.
    file.write_bytes(re.sub(rb"(?m)\AFrom: .*$", b"From: " + sender.encode(), letter))
    # Nothing of the person's or the machine's own configuration.
    config = scratch / "gitconfig"
    config.write_text(f"[user]\nname = A Sender\nemail = {sender}\n")
    words = [program("git"), "send-email", "--quiet", "--confirm=never", "--suppress-cc=all"]
    words += ["--no-thread", "--no-xmailer", "--transfer-encoding=8bit", "--8bit-encoding=UTF-8"]
    words += [f"--from={sender}", f"--envelope-sender={sender}", f"--smtp-server={HOST}"]
    words += [f"--smtp-server-port={way.port}", "--smtp-domain=git.far.test"]
    words += [f"--to={recipient}" for recipient in recipients]
    if way.tls:
        words += [f"--smtp-encryption={'tls' if way.tls == 'starttls' else 'ssl'}"]
        words += [f"--smtp-ssl-cert-path={way.trust}"]
    if way.account:
        words += [f"--smtp-user={way.account.name}", f"--smtp-pass={way.account.password}"]
        words += [f"--smtp-auth={way.account.mechanism}"]
    run(
        [*words, str(file)],
        GIT_CONFIG_GLOBAL=str(config),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CEILING_DIRECTORIES=str(scratch.parent),
        HOME=str(scratch),
    )
    return letter


def by_openssl(way: Way, sender: str, recipients: Sequence[str], letter: bytes, scratch: Path) -> bytes:
    """openssl s_client, which encrypts what a person types, and types CRLF line ends."""
    words = [program("openssl"), "s_client", "-connect", f"{HOST}:{way.port}", "-crlf", "-quiet"]
    words += ["-CAfile", str(way.trust), "-verify_return_error", "-verify_quiet"]
    words += ["-starttls", "smtp"] if way.tls == "starttls" else []
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            # With -starttls it has read the banner itself.
            said = [] if way.tls == "starttls" else [_reply(process.stdout)]
            stuffed = letter.replace(b"\n.", b"\n..")
            recipient = [f"RCPT TO:<{recipient}>".encode() for recipient in recipients]
            for line in (b"EHLO openssl.far.test", f"MAIL FROM:<{sender}>".encode(), *recipient, b"DATA"):
                process.stdin.write(line + b"\n")
                process.stdin.flush()
                said.append(_reply(process.stdout))
            for line in (stuffed + b".\n", b"QUIT\n"):
                process.stdin.write(line)
                process.stdin.flush()
                said.append(_reply(process.stdout))
        finally:
            watchdog.cancel()
            process.kill()
        codes = [int(reply[:3] or 0) for reply in said]
        expected = [250, 250, *[250] * len(recipients), 354, 250, 221]
        expected = expected if way.tls == "starttls" else [220, *expected]
        assert codes == expected, (said, process.stderr.read())
    return letter


def _reply(file: IO[bytes]) -> bytes:
    """The next reply; empty at the end."""
    while (line := file.readline()) and line[3:4] == b"-":
        pass
    return line


CLIENTS: dict[str, Send] = {
    "smtplib": by_smtplib,
    "swaks": by_swaks,
    "curl": by_curl,
    "msmtp": by_msmtp,
    "git send-email": by_git,
}
"""Those that can do it all."""
