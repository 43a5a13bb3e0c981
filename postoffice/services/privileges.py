"""Who the service runs as, and how root is given up for good.

Used once, at the start of the service, before any thread exists. When it cannot be done the service
does not start: `PermissionError` says why.
"""

from __future__ import annotations

import grp
import os
import pwd

from attrs import frozen


@frozen
class Account:
    """The account the service runs as."""

    name: str
    uid: int
    gid: int
    home: str


def service_account(user: str | None) -> Account:
    """The account to run as: `user` when started by root, else whoever started us.

    Errors: LookupError, with what to do, when root started us and there is no such account or it is root.
    """
    if os.geteuid() != 0:
        own = _account(pwd.getpwuid(os.geteuid()))
        if user not in (None, own.name):
            raise LookupError(f"only root can run the service as {user}; leave user= out")
        return own
    return named_account(user)


def named_account(user: str | None) -> Account:
    """The account to run as when started by root; errors as those of `service_account`."""
    name = user or "postoffice"
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise LookupError(
            f"there is no account {name!r} to run as; create it (useradd --system {name}) or set user="
        ) from None
    if entry.pw_uid == 0:
        raise LookupError(f"{name} is root, and the service never runs as root; name another account")
    return _account(entry)


def account_name(uid: int) -> str | None:
    """The name of an account, None where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def full_name(account: str) -> str:
    """The first part of an account's gecos field, in which `&` stands for the account; empty if unknown."""
    try:
        gecos = pwd.getpwnam(account).pw_gecos
    except KeyError:
        return ""
    return gecos.partition(",")[0].replace("&", account.capitalize())


def group_id(name: str | None) -> int | None:
    """The id of a group. Errors: LookupError when there is no such group."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise LookupError(f"there is no group {name!r}; name one that is there") from None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def give_up_root(account: Account) -> None:
    """Become `account` with its groups, with no way back; anybody but root stays who he is."""
    os.umask(0o077)
    if os.geteuid() != 0:
        return
    os.initgroups(account.name, account.gid)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError(f"root could be regained after becoming {account.name}")


def make_directory(path: str, account: Account, mode: int) -> None:
    """Make a directory that is not there, and the ones above it, and give it to `account`.

    One that is there is left as it is. Errors: OSError.
    """
    if os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(path) or ".", 0o755, exist_ok=True)
    os.mkdir(path, mode)
    if os.geteuid() == 0:
        # Whoever may write above it could have put a link in its place.
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
