"""Both engines for the tests: `warehouse` is an empty, migrated database on each of them in turn."""

import itertools
import sys
from pathlib import Path

import pytest

from analytics import server
from analytics.clickhouse import connect
from analytics.migrate import migrate

sys.path.insert(0, str(Path(__file__).parent))  # for event_rows.py, the builders shared by these tests
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running_server(tmp_path_factory):
    if not server.available():
        pytest.skip(server.MISSING)
    with server.Server(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture(scope="module")
def chdb_url(tmp_path_factory):
    pytest.importorskip("chdb", reason="chdb is not installed: pip install 'postroad[local]'")
    url = f"chdb://{tmp_path_factory.mktemp('chdb')}"
    held = connect(
        url
    )  # the engine stays up between tests, and is gone after the module: one folder per process at a time
    held.create_database()
    held.query("SELECT 1")
    yield url
    held.close()


@pytest.fixture(params=["chdb", "server"])
def empty(request):
    """A warehouse whose database does not exist yet."""
    url = (
        request.getfixturevalue("chdb_url")
        if request.param == "chdb"
        else request.getfixturevalue("running_server").url
    )
    warehouse = connect(url, f"test_{next(_numbers)}")
    yield warehouse
    warehouse.close()


@pytest.fixture
def warehouse(empty):
    migrate(empty)
    return empty
