"""A fuzzer for the SMTP server engine: `python -m tests.fuzz --seconds N`, see `__main__`."""
