"""Filters: what looks at letters before we take them, and may refuse, change or hold them.

A chain asks each in order; milters, Python filters and the AV program are all of one kind to it.
"""
