"""The configuration: one table of options, read into frozen settings. No disk, clock or Twisted in it."""
