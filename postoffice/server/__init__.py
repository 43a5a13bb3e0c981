"""The doors: SMTP listeners, their conversations, and the local socket."""
