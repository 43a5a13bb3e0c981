"""What is done as somebody else: the helper, its supervisor, and the processes that are a user.

The service runs as an account of its own. What has to happen as a user (append to a mailbox, run a
`|command`, read a `.forward`, check a password) it asks of a *child* that has become this user. Children are
made by the *helper*, which alone holds root, and does nothing but look an account up and fork; the
*supervisor* keeps a helper running. None of them imports more than the standard library, `postoffice.wire`,
`postoffice.crypt`, and the modules that write mailboxes. Started by anybody but root, the same processes can
be nobody else, and are the account they were started as.

They speak over SOCK_SEQPACKET sockets, one J frame of `postoffice.wire` in each packet, letters and other
contents in sealed memory files beside it. To the helper, on the socket it was started with:

    {"account": NAME, "purpose": "files" | "places" | "command" | "shadow" | "pam"}
                                                                 with one end of a socket pair

and from it, once at its start: {"started": PID, "ended": TEXT}, where TEXT tells how an earlier one ended.
The child answers on the other end of the pair. Its jobs each have an `id`, which its answer repeats:

    {"do": "mbox", "path", "sender", "now", "tree", "quote"}     with the letter; {} when it was stored
    {"do": "append", "path", "tree", "quote", "letters": [[SENDER, NOW, SIZE]...]}
                     with small letters, one behind the other; {"letters": [ANSWER...]}, one for each
    {"do": "maildir", "path", "now", "host", "tree"}             with the letter; {} when it was stored
    {"do": "command", "text", "environment", "sender", "now", "timeout"}
                     with the letter; {"status": N} or {"signal": N} or {"timeout": true}, and "output";
                     where `sender` is null, the letter has no `From ` line in front
    {"do": "read", "name"}     {"found": false}, or {"found": true} with the content
    {"do": "password", "name"}
                     with a password; {"right": BOOL}, or {"trouble": TEXT} where it could not be checked

What went wrong is answered by {"errno": N}, {"busy": true} or {"unsafe": TEXT}; the mailbox is as it was. A
child that does not come to be says {"refused": TEXT, "rule": BOOL, "never": BOOL} instead: by a rule about
the account, or because something went wrong. What a child may do depends on its purpose: write mailboxes and
read (`files`), the same but reading, without the group of the mail folder, for places that a user names
(`places`), or, in a process of its own, one command, or the check of one password (`shadow` as the service's
account, `pam` as the one it is about). Passwords are seen by these two kinds of children alone, and letters
by the others: the helper sees neither. The end of a connection ends whoever is at its other end: children,
helper and supervisor.
"""
