"""The ways of getting a letter to a destination."""
