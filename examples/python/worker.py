"""Runs orders until it is stopped. Start as many of these as you like: they share the work.

An order is charged, with retries, and large ones wait for somebody's approval first, but not for ever. The stock is an entity, of
which there is one for each article.
"""

import os
import threading
from datetime import timedelta

from durabletask import entities, task
from durabletask.entities import EntityInstanceId
from durabletask.worker import TaskHubGrpcWorker

ADDRESS = os.environ.get("STEADFAST_ADDRESS", "localhost:4001")

APPROVAL_FROM = 1000
RETRIES = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=1), backoff_coefficient=2.0, max_number_of_attempts=5)


class Stock(entities.DurableEntity):
    """How many pieces of an article there are. Its operations run one at a time."""

    def add(self, pieces: int) -> int:
        total = self.get_state(int, 0) + pieces
        self.set_state(total)
        return total

    def take(self, pieces: int) -> bool:
        left = self.get_state(int, 0) - pieces
        if left < 0:
            return False
        self.set_state(left)
        return True


def charge(ctx: task.ActivityContext, amount: int) -> str:
    """An activity may run more than once; what it does outside should be told apart by this key."""
    return f"receipt {ctx.orchestration_id}/{ctx.task_id} over {amount}"


def order(ctx: task.OrchestrationContext, request: dict):
    stock = EntityInstanceId("Stock", request["article"])
    amount = request["pieces"] * request["price"]

    if amount >= APPROVAL_FROM:
        ctx.set_custom_status("waiting for approval")
        approval = ctx.wait_for_external_event("approval")
        deadline = ctx.create_timer(timedelta(days=3))
        winner = yield task.when_any([approval, deadline])
        if winner is deadline or not approval.get_result():
            return {"status": "rejected"}
        deadline.cancel()

    ctx.set_custom_status("in work")
    if not (yield ctx.call_entity(stock, "take", request["pieces"])):
        return {"status": "sold out"}
    receipt = yield ctx.call_activity(charge, input=amount, retry_policy=RETRIES)
    return {"status": "paid", "receipt": receipt}


def main() -> None:
    with TaskHubGrpcWorker(host_address=ADDRESS) as worker:
        worker.add_orchestrator(order)
        worker.add_activity(charge)
        worker.add_entity(Stock)
        # Only what is registered here comes here, so that other workers can run other things.
        worker.use_work_item_filters()
        worker.start()
        print(f"works for {ADDRESS}; Ctrl-C stops it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
