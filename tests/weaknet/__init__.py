"""Weak networks: the profiles of `fixtures/weak-networks/`, their draws, and the timelines compiled from them."""
