"""Hypothesis for all unit tests: an example may take what time it takes, as the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("portico", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("portico")
