"""Benchmarks, side by side with public tools."""

from __future__ import annotations
