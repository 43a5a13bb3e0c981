"""The language of a letter: frozen values without I/O, shared by every engine and stage."""
