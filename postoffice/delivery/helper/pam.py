"""Asking PAM about a password, by the C library's own interface (pam(3)).

Used by `postoffice.delivery.helper.passwords` in a child that is made for one check. Standard library only:
what the child would have to load besides might lie where its account cannot read.

PAM is asked for the account as well, so that one that has expired, or whose password has to be changed, is
not let in; and it is told that an empty password is none, which its own rules often allow: then any password
would do. It does not wait behind a wrong one: the service does (`postoffice.delivery.passwords`).

When things fail: `LookupError` when there is no PAM, `OSError` when PAM could not find out.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

from postoffice.crypt import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SERVICE = "postoffice"
"""What the rules of PAM are looked up by (/etc/pam.d/postoffice, else those of `other`)."""

# <security/_pam_types.h>
_SUCCESS, _BUF_ERR, _CONV_ERR = 0, 5, 19
_PROMPT_ECHO_OFF, _PROMPT_ECHO_ON = 1, 2
_FAIL_DELAY = 10
_SILENT, _DISALLOW_NULL_AUTHTOK = 0x8000, 1
# What is about the account and not about the machine: PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN,
# MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED, AUTHTOK_EXPIRED.
_DENIED = frozenset({6, 7, 8, 10, 11, 12, 13, 27})


class _Message(ctypes.Structure):
    """`struct pam_message`."""

    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    """`struct pam_response`; the text and the array are PAM's to free."""

    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Messages = ctypes.POINTER(ctypes.POINTER(_Message))
_Responses = ctypes.POINTER(ctypes.POINTER(_Response))
_Talk = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _Messages, _Responses, ctypes.c_void_p)
_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class _Conversation(ctypes.Structure):
    """`struct pam_conv`."""

    _fields_ = (("talk", _Talk), ("data", ctypes.c_void_p))


def load_pam() -> Callable[[str, Secret], bool]:
    """What asks PAM whether an account may come in with a password. Errors: LookupError without PAM."""
    try:
        library = ctypes.CDLL("libpam.so.0")
    except OSError as error:
        raise LookupError(f"auth=pam needs PAM: {error}") from None
    library.pam_start.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(_Conversation),
        ctypes.POINTER(ctypes.c_void_p),
    )
    library.pam_set_item.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    for name in ("pam_authenticate", "pam_acct_mgmt", "pam_end", "pam_strerror"):
        getattr(library, name).argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.pam_strerror.restype = ctypes.c_char_p

    def ask(name: str, password: Secret) -> bool:
        # PAM keeps pointers to these until it is told the end.
        conversation = _Conversation(_Talk(_answering(password)), None)
        no_delay = _Delay(lambda status, microseconds, data: None)
        handle = ctypes.c_void_p()
        status = library.pam_start(
            SERVICE.encode(), name.encode(), ctypes.byref(conversation), ctypes.byref(handle)
        )
        if status != _SUCCESS:
            raise OSError(errno.EIO, f"PAM could not be started ({status})")
        library.pam_set_item(handle, _FAIL_DELAY, ctypes.cast(no_delay, ctypes.c_void_p))
        try:
            for step in (library.pam_authenticate, library.pam_acct_mgmt):
                status = step(handle, _SILENT | _DISALLOW_NULL_AUTHTOK)
                if status in _DENIED:
                    return False
                if status != _SUCCESS:
                    reason = library.pam_strerror(handle, status) or b""
                    raise OSError(errno.EIO, f"PAM: {reason.decode('utf-8', 'replace')}")
            return True
        finally:
            library.pam_end(handle, status)

    return ask


def _answering(password: Secret) -> Callable[..., int]:
    """A conversation in which every question that hides what is typed is answered with the password."""
    process = ctypes.CDLL(None)
    process.calloc.restype = process.strdup.restype = ctypes.c_void_p
    process.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    process.strdup.argtypes = (ctypes.c_char_p,)

    def talk(count: int, messages: Any, responses: Any, _: Any) -> int:
        if any(messages[at].contents.style == _PROMPT_ECHO_ON for at in range(count)):
            return _CONV_ERR
        answers = process.calloc(count, ctypes.sizeof(_Response))
        if not answers:
            return _BUF_ERR
        responses[0] = ctypes.cast(answers, ctypes.POINTER(_Response))
        for at in range(count):
            if messages[at].contents.style == _PROMPT_ECHO_OFF:
                responses[0][at].text = process.strdup(password)
        return _SUCCESS

    return talk
