"""How many orchestrations of three activities a second the Python SDK makes: with its own backend in memory, and with a server.

    python benches/remote/throughput.py --address 127.0.0.1:4001

Both run the same load, in turns, so that what else the machine does meets both. The backend runs in a process of its own, as
the server does, and the worker and the client in this one. The backend in memory keeps nothing; the server makes each step durable.
"""

import argparse
import contextlib
import logging
import multiprocessing
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker

QUIET = logging.getLogger("quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.setLevel(logging.CRITICAL)


def greet(ctx: task.ActivityContext, city: str) -> str:
    return f"Hello, {city}!"


def hello_sequence(ctx: task.OrchestrationContext, _):
    greetings = []
    for city in ("Tokyo", "Seattle", "London"):
        greetings.append((yield ctx.call_activity(greet, input=city)))
    return greetings


def serve_in_memory(port: int, ready, done) -> None:
    logging.disable(logging.CRITICAL)
    from durabletask.testing import InMemoryOrchestrationBackend
    backend = InMemoryOrchestrationBackend(max_history_size=10_000_000, port=port)
    backend.start()
    ready.set()
    done.wait()
    backend.stop()


@contextlib.contextmanager
def in_memory():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=serve_in_memory, args=(port, ready, done), daemon=True)
    process.start()
    ready.wait(60)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        done.set()
        process.join()


def rate(address: str, instances: int, concurrency: int) -> float:
    """Orchestrations a second. Each caller starts one, waits for its end, and starts the next."""
    with TaskHubGrpcWorker(host_address=address, logger=QUIET) as worker, \
            TaskHubGrpcClient(host_address=address, logger=QUIET) as client:
        worker.add_orchestrator(hello_sequence)
        worker.add_activity(greet)
        worker.start()

        def one(_: int) -> None:
            instance = client.schedule_new_orchestration(hello_sequence)
            state = client.wait_for_orchestration_completion(instance, timeout=120)
            assert state.runtime_status is OrchestrationStatus.COMPLETED, state
            assert state.get_output() == ["Hello, Tokyo!", "Hello, Seattle!", "Hello, London!"]

        with ThreadPoolExecutor(concurrency) as callers:
            list(callers.map(one, range(concurrency)))  # until everything is connected and warm
            began = time.perf_counter()
            list(callers.map(one, range(instances)))
            return instances / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="where the server listens, for example 127.0.0.1:4001")
    parser.add_argument("--instances", type=int, default=500, help="orchestrations in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each")
    parser.add_argument("--concurrency", type=int, default=8, help="callers; the backend in memory has ten threads for calls")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"in memory": [], "server": []}
    for round in range(options.rounds):
        with in_memory() as memory:
            for name, address in (("in memory", memory), ("server", options.address)):
                rates[name].append(rate(address, options.instances, options.concurrency))
                print(f"round {round + 1}, {name}: {rates[name][-1]:.0f}/s", flush=True)
    for name, measured in rates.items():
        print(f"{name}: median {statistics.median(measured):.0f}/s of " + ", ".join(f"{one:.0f}" for one in measured))
    ratios = [server / memory for memory, server in zip(rates["in memory"], rates["server"])]
    print(f"server / in memory: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
