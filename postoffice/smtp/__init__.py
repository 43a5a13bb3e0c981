"""SMTP as pure engines: bytes in and events out, values in and bytes out; no I/O and no clock."""

from __future__ import annotations
