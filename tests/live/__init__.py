"""Tests against real programs, in processes of their own."""
