"""Whom we talk to and what we take from them, decided before a letter is accepted."""
