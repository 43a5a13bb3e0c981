"""The relay queue: what is tried when, how many at a time, and what becomes of what fails."""
