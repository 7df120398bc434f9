"""Fixtures of all tests: a server for each file, a client, and workers that stop with the test."""

import logging
import os
import sys
import threading
import time
import uuid
from typing import Any, Callable, Iterator

import pytest

from durabletask import client as sdk, worker as sdk_worker
from durabletask.grpc_options import GrpcWorkerResiliencyOptions

from support.raw import Caller, RawWorker, named
from support.server import Server

# The SDK's workers log each step; pytest shows it only with a test that fails.
LOGGER = logging.getLogger("worker")
CLIENT_LOGGER = logging.getLogger("client")

# So that a worker finds a restarted server soon.
RECONNECT = GrpcWorkerResiliencyOptions(reconnect_backoff_base_seconds=0.1, reconnect_backoff_cap_seconds=0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture
def own_server(tmp_path) -> Iterator[Server]:
    """A server for one test, which may kill it."""
    server = Server(tmp_path)
    yield server
    server.end()


@pytest.fixture
def client(server: Server) -> Iterator[sdk.TaskHubGrpcClient]:
    with sdk.TaskHubGrpcClient(host_address=server.address, logger=CLIENT_LOGGER) as client:
        yield client


@pytest.fixture
def caller(server: Server) -> Iterator[Caller]:
    caller = Caller(server)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def stopping() -> Iterator[list[threading.Thread]]:
    """Workers on their way to a stop: it ends their stream at once, and then takes a second that nobody waits for."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(30)
    STUCK.extend(thread for thread in threads if thread.is_alive())
    assert not STUCK, "a worker does not stop: its code runs for ever"


# Workers that do not stop would keep the process from its end.
STUCK: list[threading.Thread] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    if STUCK:
        sys.stdout.flush()
        os._exit(1)


@pytest.fixture
def new_worker(stopping: list[threading.Thread]) -> Iterator[Callable[..., sdk_worker.TaskHubGrpcWorker]]:
    """Starts workers of the SDK on any server."""
    workers: list[sdk_worker.TaskHubGrpcWorker] = []

    def start(server: Server, *, orchestrators=(), activities=(), entities=(), versioning=None, filters=None,
              schedules=False, **options: Any) -> sdk_worker.TaskHubGrpcWorker:
        worker = sdk_worker.TaskHubGrpcWorker(
            host_address=server.address, logger=LOGGER, resiliency_options=RECONNECT, **options)
        for orchestrator in orchestrators:
            worker.add_orchestrator(orchestrator)
        for activity in activities:
            worker.add_activity(activity)
        for entity in entities:
            worker.add_entity(entity)
        if schedules:
            worker.configure_scheduled_tasks()
        if versioning is not None:
            worker.use_versioning(versioning)
        if filters == "registered":
            worker.use_work_item_filters()
        elif filters is not None:
            worker.use_work_item_filters(filters)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        thread = threading.Thread(target=worker.stop, daemon=True)
        thread.start()
        stopping.append(thread)


@pytest.fixture
def worker(server: Server, new_worker) -> Callable[..., sdk_worker.TaskHubGrpcWorker]:
    """Starts workers of the SDK on the file's server."""
    return lambda **options: new_worker(server, **options)


@pytest.fixture
def new_raw_worker() -> Iterator[Callable[..., RawWorker]]:
    workers: list[RawWorker] = []

    def start(server: Server, **request: Any) -> RawWorker:
        workers.append(RawWorker(server, **request))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def raw_worker(server: Server, new_raw_worker) -> Callable[..., RawWorker]:
    """Starts workers that speak the protocol on the file's server."""
    return lambda **request: new_raw_worker(server, **request)


@pytest.fixture(scope="session", autouse=True)
def idle_since_the_beginning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RawWorker, float]]:
    """A stream that wants nothing that there is. It waits beside all other tests, so that nobody waits for it."""
    server = Server(tmp_path_factory.mktemp("idle"))
    worker = RawWorker(server, workItemFilters=named(orchestrations=["nobody starts this"]))
    yield worker, time.monotonic()
    worker.close()
    server.end()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Ids that no other test uses."""
    suffix = uuid.uuid4().hex[:12]
    return lambda name="id": f"{name}-{suffix}"


@pytest.fixture
def run(client: sdk.TaskHubGrpcClient) -> Callable[..., sdk.OrchestrationState]:
    """Starts an orchestration and waits for its end."""

    def run(orchestrator, input: Any = None, **options: Any) -> sdk.OrchestrationState:
        instance = client.schedule_new_orchestration(orchestrator, input=input, **options)
        state = client.wait_for_orchestration_completion(instance, timeout=60)
        assert state is not None
        return state

    return run
