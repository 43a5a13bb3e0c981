"""What people type. Standard library and `postoffice.wire` only, so that a command starts in milliseconds."""
