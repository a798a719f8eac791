"""A mark for the tests of what the service does within so many seconds."""

import pytest

timed = pytest.mark.flaky(reruns=2)
"""Tries a test again that failed, twice at most.

It is for tests where the seconds are what is tested, by the contract or because something slower
would do the same a little later: a machine that stands still for some of them fails such a test,
whatever the service does. It is not for a test whose bound could as well be far away, or that
another assertion proves without one.
"""
