"""The milter protocol as values and an engine, without I/O: packets, verdicts, edits, one filter's state."""
