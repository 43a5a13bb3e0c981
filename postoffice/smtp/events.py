"""What a client did, as the server engine tells it. The set is closed.

Made by `postoffice.smtp.server.ServerEngine`, matched by the session. Every event but `Content` and
`Chunk` is answered exactly once. Text in an event is printable ASCII, but under SMTPUTF8 (RFC 6531) of any
script in addresses and ORCPT; an event never carries a CR, LF or NUL except inside the octets of `Content`.
RFC 5321 section 4.1.
"""

from __future__ import annotations

from attrs import field, frozen

from postoffice.mail.address import Address
from postoffice.mail.envelope import Body, Ret
from postoffice.mail.reply import Reply


@frozen
class Helo:
    """HELO, or EHLO when `extended`. Any transaction under way ends when it is accepted."""

    name: str
    extended: bool


@frozen
class Mail:
    """MAIL: a new transaction. The one before it is over, however this event is answered.

    `sender` `None` is the null sender; `size` is the SIZE that was declared, in octets; `ret`, `envid` and
    `smtputf8` are as in `Envelope`.
    """

    sender: Address | None
    size: int | None = None
    body: Body = "7BIT"
    ret: Ret = ""
    envid: str = ""
    smtputf8: bool = False


@frozen
class Rcpt:
    """RCPT, one recipient of the transaction; `notify` and `orcpt` are as in `ReportRequest`."""

    recipient: Address
    notify: str = ""
    orcpt: str = ""


@frozen
class Data:
    """DATA, a recipient was accepted before. Answered 354, content follows; else the transaction ends."""


@frozen
class Content:
    """A piece of content: CRLF line ends, dots unstuffed; pieces end anywhere. It takes no answer."""

    data: bytes


@frozen
class Chunk:
    """BDAT (RFC 3030): so many octets of content follow. It takes no answer, the end of the chunk does."""

    octets: int
    last: bool


@frozen
class EndOfChunk:
    """A chunk that is not the last is complete. Refused, the transaction ends.

    `size` counts the octets of all chunks so far; `defect` is as in `EndOfContent`.
    """

    size: int
    defect: Reply | None = None


@frozen
class EndOfContent:
    """The content is complete, behind its final dot or its last chunk; the transaction ends with the answer.

    `size` counts octets as they came in, stuffed dots included, without the final dot. With a
    `defect` the letter must not be kept, what was yielded of it is a part only, and `defect` is the
    answer.
    """

    size: int
    defect: Reply | None = None


@frozen
class Reset:
    """RSET: the transaction ends."""


@frozen
class Noop:
    """NOOP."""


@frozen
class Verify:
    """VRFY with its argument, as it came."""

    text: str


@frozen
class Expand:
    """EXPN with its argument, as it came."""

    text: str


@frozen
class Help:
    """HELP with its argument, which may be empty."""

    text: str


@frozen
class Quit:
    """QUIT; answered 221, the connection closes."""


@frozen
class StartTls:
    """STARTTLS (RFC 3207); answered 220, the engine reads nothing before `ServerEngine.secured`."""


@frozen
class Auth:
    """AUTH (RFC 4954): a mechanism in upper case, and the initial response as it came.

    `initial` is base64, `=` standing for an empty one, None where none was sent. Answered 334 the
    exchange goes on with `AuthResponse`; any other answer ends it, 235 in success. What may hold a
    password is not shown.
    """

    mechanism: str
    initial: str | None = field(repr=False)


@frozen
class AuthResponse:
    """A line of the exchange that `Auth` began, as it came; `*` cancels. Answered as `Auth` is.

    A line that the engine refuses itself (`Refused` with the verb AUTH) ends the exchange.
    """

    line: bytes = field(repr=False)


@frozen
class Etrn:
    """ETRN (RFC 1985) with its argument, as it came."""

    argument: str


@frozen
class Xclient:
    """XCLIENT with its attributes, as they came; answered 220, the session starts over."""

    attributes: str


@frozen
class Debug:
    """DEBUG: the settings are asked for."""


@frozen
class Other:
    """A command that the engine does not know; `verb` in upper case, cut to 20 characters, maybe empty."""

    verb: str


@frozen
class Refused:
    """The engine refuses; answer with `reply`. `verb` is the command's, empty where it has no known one.

    `error` is false where a client that keeps to the protocol may come to this: a declared size over
    the limit, or DATA pipelined behind recipients of which none was accepted.
    """

    verb: str
    reply: Reply
    error: bool = True


Event = (
    Helo
    | Mail
    | Rcpt
    | Data
    | Content
    | Chunk
    | EndOfChunk
    | EndOfContent
    | Reset
    | Noop
    | Verify
    | Expand
    | Help
    | Quit
    | StartTls
    | Auth
    | AuthResponse
    | Etrn
    | Xclient
    | Debug
    | Other
    | Refused
)
