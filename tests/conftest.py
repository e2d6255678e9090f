"""
What all tests share: the profile of Hypothesis, a heap that is looked through once, event loops for
async tests, and `--rewrite` for the expectations of `tests/scenarios`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.clock import SkippingLoop, VirtualLoop

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "local", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the scenarios of tests/scenarios give into their files; read the "
        "difference before it is committed",
    )


def pytest_collection_finish() -> None:
    """
    What was imported stays: garbage is not looked for in it again, as a stage does whenever it lets
    go of a shard.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """`async def test_...` runs in an event loop of its own, in virtual time where it is marked."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    virtual = pyfuncitem.get_closest_marker("virtual_time") is not None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=VirtualLoop if virtual else SkippingLoop) as runner:
        runner.run(pyfuncitem.obj(**given))
    return True
