"""Starts orders and decides on them. It needs no code of the worker: names and values are all that is shared."""

import os

from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityInstanceId

ADDRESS = os.environ.get("STEADFAST_ADDRESS", "localhost:4001")


def main() -> None:
    with TaskHubGrpcClient(host_address=ADDRESS) as client:
        # Signals need no answer; the entity is made by the first of them.
        client.signal_entity(EntityInstanceId("Stock", "cup"), "add", 100)

        small = client.schedule_new_orchestration("order", input={"article": "cup", "pieces": 2, "price": 7})
        large = client.schedule_new_orchestration("order", input={"article": "cup", "pieces": 90, "price": 20})
        client.raise_orchestration_event(large, "approval", data=False)

        for instance in (small, large):
            state = client.wait_for_orchestration_completion(instance, timeout=60)
            state.raise_if_failed()
            print(f"order {instance}: {state.get_output()}")


if __name__ == "__main__":
    main()
