"""Durable storage of letters between their arrival and their delivery."""

from __future__ import annotations
