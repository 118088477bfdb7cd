import os

import pytest
import upstream


@pytest.fixture(scope="session")
def fetched():
    """The folder of real packages; a skip that says why they cannot be had, a failure where they must be."""

    def fetch(wheels: upstream.Wheels):
        try:
            return wheels.fetch()
        except upstream.CannotBeHad as error:
            (pytest.fail if os.environ.get("UPSTREAM_REQUIRED") else pytest.skip)(str(error))

    return fetch
