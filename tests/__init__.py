"""Tests of Postoffice; the folders mirror the program's, and `live` runs against real programs.

Properties are not held to a time: the machine may have other things to do.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
