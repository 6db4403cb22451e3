"""`pytest tests/machines --hypothesis-profile=long`: a search of hours instead of the suite's minute."""

from hypothesis import settings

settings.register_profile("long", max_examples=1_000, stateful_step_count=50)
