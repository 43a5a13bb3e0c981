"""Who a child may be, and how it becomes that.

Account 0 is nobody's, and so is an account below `min-uid`, but for those that only mailboxes are delivered
to. Groups, group and user are given up for those of the account, and whether root can be had back is tried:
a child that could is none. Children that check passwords cannot be traced or read by others of their account,
and of these one for PAM may gain privileges by what it runs. Errors: `Refused`, and whatever the system says.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import stat

from postoffice.crypt import SHADOW

NOBODY = "nobody"
MAILBOXES = frozenset({"files", "places"})
"""What children of accounts that only mailboxes are delivered to may be for."""
CHECKS = frozenset({"shadow", "pam"})
"""Purposes of children that see a password."""

LIMITS = {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (1024, 4096)}
"""What a child and the commands it runs may use, at first and at most.

A core file would show letters. The service may open so many files that programs which close all there could
be would take long. How much a user has going, or stored, is for the machine's operator to limit (limits.conf,
quotas, `TasksMax=` of the unit): a number that counts what else the user does would lose mail.
"""

# prctl(2)
_SET_DUMPABLE = 4
_NO_NEW_PRIVS = 38


class Refused(Exception):
    """The account is not one to act as; `never` where that is not for somebody to mend."""

    def __init__(self, text: str, never: bool) -> None:
        super().__init__(text)
        self.never = never


class Rules:
    """Whom children may be.

    Accounts below `min_uid` are refused, but for those of `mailboxes_only`. `mail_folder` is where users'
    mboxes lie ("" for nowhere): a child that writes these keeps the group that may write there. `service` is
    the account of the service, which is also who reads the shadow database, with the group that may.
    """

    def __init__(self, min_uid: int, mailboxes_only: frozenset[str], mail_folder: str, service: str) -> None:
        self.min_uid = min_uid
        self.mailboxes_only = mailboxes_only
        self.mail_folder = mail_folder
        self.service = service

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
        if purpose == "shadow":
            if name != self.service:
                raise Refused(f"{name} does not check passwords of others", never=True)
        elif entry.pw_uid < self.min_uid and not (purpose in MAILBOXES and name in self.mailboxes_only):
            raise Refused(f"nothing is done as {name}, whose number is below min-uid", never=True)
        return entry

    def may_be(self, entry: pwd.struct_passwd) -> bool:
        """Whether an account may log in by the shadow database: whoever PAM would be asked as."""
        return entry.pw_uid != 0 and entry.pw_gid != 0 and entry.pw_uid >= self.min_uid

    def shared_group(self, purpose: str) -> int | None:
        """The group that a child has besides the account's: to write where mboxes lie, or to read hashes."""
        if os.geteuid() != 0:
            return None
        if purpose == "shadow":
            return _readers()
        if purpose != "files" or not self.mail_folder:
            return None
        try:
            status = os.stat(self.mail_folder)
        except OSError:
            return None
        writable = status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_IWOTH
        return status.st_gid if writable and status.st_uid == 0 and status.st_gid != 0 else None


def _readers() -> int:
    """The group that may read the shadow database."""
    status = os.stat(SHADOW)
    if status.st_gid == 0 or not status.st_mode & stat.S_IRGRP:
        raise Refused(f"no group but root's may read {SHADOW}: auth=pam may do without", never=False)
    return status.st_gid


def _own(name: str) -> pwd.struct_passwd:
    """Without root there is one account only, which also does what is nobody's."""
    own = pwd.getpwuid(os.geteuid())
    if own.pw_uid == 0 or name not in (own.pw_name, NOBODY):
        raise Refused(f"only root can let something be done as {name}", never=False)
    return own


def become(entry: pwd.struct_passwd, purpose: str, shared_group: int | None) -> None:
    """Be this account from now on, with nothing left of the one before."""
    if os.geteuid() == 0:
        groups = {group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group != 0}
        effective = entry.pw_gid
        if purpose == "shadow" and shared_group is not None:
            # The only group, and one that can be left (`leave_group`).
            groups, effective = set(), shared_group
        elif shared_group is not None:
            groups.add(shared_group)
        os.setgroups(sorted(groups))
        os.setresgid(entry.pw_gid, effective, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        _check(entry, effective)
    if purpose != "pam":
        _prctl(_NO_NEW_PRIVS, 1)
    if purpose in CHECKS:
        _prctl(_SET_DUMPABLE, 0)
    set_limits()
    os.umask(0o077)
    try:
        # A home may be a file system that does not answer.
        os.chdir("/" if purpose in CHECKS else entry.pw_dir)
    except OSError:
        os.chdir("/tmp")


def set_limits() -> None:
    """Be limited from now on; never to more than before."""
    for kind, (at_first, at_most) in LIMITS.items():
        _, before = resource.getrlimit(kind)
        most = at_most if before == resource.RLIM_INFINITY else min(at_most, before)
        resource.setrlimit(kind, (min(at_first, most), most))


def leave_group() -> None:
    """Be in no group any more but the account's own, for good. Errors: `OSError`."""
    own, effective, _ = os.getresgid()
    if effective == own:
        return
    os.setresgid(own, own, own)
    # A change of groups sets it to what the machine's operator wants for such processes (fs.suid_dumpable).
    _prctl(_SET_DUMPABLE, 0)
    try:
        os.setegid(effective)
    except PermissionError:
        return
    raise PermissionError(f"the group {effective} could be regained")


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _check(entry: pwd.struct_passwd, effective: int) -> None:
    groups = (entry.pw_gid, effective, entry.pw_gid)
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != groups:
        raise PermissionError("the account was not taken on wholly")
    for regain in (os.setuid, os.setgid, os.seteuid, os.setegid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise PermissionError(f"root could be regained after becoming {entry.pw_name}")
