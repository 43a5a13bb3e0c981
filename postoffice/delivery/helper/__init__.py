"""What is done as somebody else: the helper, its supervisor, and the processes that are a user.

The service runs as an account of its own. What has to happen as a user (append to a mailbox, run a
`|command`, read a `.forward`) it asks of a *child* that has become this user. Children are made by the
*helper*, which alone holds root, and does nothing but look an account up and fork; the *supervisor* keeps a
helper running. None of them imports more than the standard library, `postoffice.wire`, and the modules that
write mailboxes. Started by anybody but root, the same processes can be nobody else, and are the account
they were started as.

They speak over SOCK_SEQPACKET sockets, one J frame of `postoffice.wire` in each packet, letters and other
contents in sealed memory files beside it. To the helper, on the socket it was started with:

    {"account": NAME, "purpose": "files" | "places" | "command"}      with one end of a socket pair

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

What went wrong is answered by {"errno": N}, {"busy": true} or {"unsafe": TEXT}; the mailbox is as it was. A
child that does not come to be says {"refused": TEXT, "never": BOOL} instead. What a child may do depends on
its purpose: everything but a command (`files`), the same but reading, without the group of the mail folder,
for places that a user names (`places`), or one command, in a process of its own. The end of a connection ends
whoever is at its other end: children, helper and supervisor.
"""
