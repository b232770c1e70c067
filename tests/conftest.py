"""For every test: hypothesis judges answers, never how long a busy machine took for them."""

from hypothesis import settings

settings.register_profile("fairlead", deadline=None)
settings.load_profile("fairlead")
