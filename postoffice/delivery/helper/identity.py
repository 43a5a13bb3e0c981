"""Who a child may be, and how it becomes that.

Account 0 is nobody's, and so is an account below `min-uid`, but for those that only mailboxes are delivered
to. Groups, group and user are given up for those of the account, and whether root can be had back is tried:
a child that could is none. Errors: `Refused`, and whatever the system says.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import stat

NOBODY = "nobody"

_NO_NEW_PRIVS = 38


class Refused(Exception):
    """The account is not one to act as; `never` where that is not for somebody to mend."""

    def __init__(self, text: str, never: bool) -> None:
        super().__init__(text)
        self.never = never


class Rules:
    """Whom children may be.

    Accounts below `min_uid` are refused, but for those of `mailboxes_only`. `mail_folder` is where users'
    mboxes lie ("" for nowhere): a child that writes these keeps the group that may write there.
    """

    def __init__(self, min_uid: int, mailboxes_only: frozenset[str], mail_folder: str) -> None:
        self.min_uid = min_uid
        self.mailboxes_only = mailboxes_only
        self.mail_folder = mail_folder

    def account(self, name: str, purpose: str) -> pwd.struct_passwd:
        """The account that a child is to be."""
        if os.geteuid() != 0:
            return _own(name)
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise Refused(f"there is no account {name}", never=False) from None
        if entry.pw_uid == 0 or entry.pw_gid == 0:
            raise Refused(f"nothing is done as {name}, who is root or of its group", never=True)
        if entry.pw_uid < self.min_uid and not (purpose != "command" and name in self.mailboxes_only):
            raise Refused(f"nothing is done as {name}, whose number is below min-uid", never=True)
        return entry

    def shared_group(self, purpose: str) -> int | None:
        """The group that a child keeps besides the account's own, to write where mboxes lie."""
        if os.geteuid() != 0 or purpose != "files" or not self.mail_folder:
            return None
        try:
            status = os.stat(self.mail_folder)
        except OSError:
            return None
        writable = status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_IWOTH
        return status.st_gid if writable and status.st_uid == 0 and status.st_gid != 0 else None


def _own(name: str) -> pwd.struct_passwd:
    """Without root there is one account only, which also does what is nobody's."""
    own = pwd.getpwuid(os.geteuid())
    if own.pw_uid == 0 or name not in (own.pw_name, NOBODY):
        raise Refused(f"only root can let something be done as {name}", never=False)
    return own


def become(entry: pwd.struct_passwd, shared_group: int | None) -> None:
    """Be this account from now on, with nothing left of the one before."""
    if os.geteuid() == 0:
        groups = {group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group != 0}
        if shared_group is not None:
            groups.add(shared_group)
        os.setgroups(sorted(groups))
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        _check(entry)
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    try:
        os.chdir(entry.pw_dir)
    except OSError:
        os.chdir("/tmp")


def _check(entry: pwd.struct_passwd) -> None:
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != (entry.pw_gid,) * 3:
        raise PermissionError("the account was not taken on wholly")
    for regain in (os.setuid, os.setgid, os.seteuid, os.setegid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise PermissionError(f"root could be regained after becoming {entry.pw_name}")
