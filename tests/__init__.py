"""Tests of Postoffice; the folders mirror the program's, and `live` runs against real programs."""
