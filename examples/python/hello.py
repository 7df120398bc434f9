"""Three activities in sequence. Worker and client are in one program here."""

import os

from durabletask import task
from durabletask.client import TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker

ADDRESS = os.environ.get("STEADFAST_ADDRESS", "localhost:4001")


def greet(ctx: task.ActivityContext, city: str) -> str:
    """Activities do the work that touches the world."""
    return f"Hello, {city}!"


def hello_sequence(ctx: task.OrchestrationContext, cities: list[str]):
    """Orchestrations decide what is done. This one can be interrupted anywhere, and goes on where it was."""
    greetings = []
    for city in cities:
        greeting = yield ctx.call_activity(greet, input=city)
        greetings.append(greeting)
    return greetings


def main() -> None:
    with TaskHubGrpcWorker(host_address=ADDRESS) as worker, TaskHubGrpcClient(host_address=ADDRESS) as client:
        worker.add_orchestrator(hello_sequence)
        worker.add_activity(greet)
        worker.start()

        instance = client.schedule_new_orchestration(hello_sequence, input=["Tokyo", "Seattle", "London"])
        state = client.wait_for_orchestration_completion(instance, timeout=60)
        state.raise_if_failed()
        print(f"{instance} is {state.runtime_status.name}: {state.get_output()}")


if __name__ == "__main__":
    main()
