"""A worker in a process of its own, to be killed: `python -m support.worker_process ADDRESS`.

It prints a line for each activity that begins, and the activity `stuck` never ends.
"""

import logging
import sys
import threading

from durabletask import task, worker


def stuck(ctx: task.ActivityContext, input):
    print(f"begun {ctx.orchestration_id}", flush=True)
    threading.Event().wait()


def stuck_entity(ctx, input):
    print(f"begun {ctx.entity_id}", flush=True)
    threading.Event().wait()


def stuck_turn(ctx: task.OrchestrationContext, input):
    print(f"begun {ctx.instance_id}", flush=True)
    threading.Event().wait()
    yield ctx.call_activity("stuck")


def one_step(ctx: task.OrchestrationContext, input):
    return (yield ctx.call_activity("stuck", input=input))


def main() -> None:
    logger = logging.getLogger("killed")
    logger.addHandler(logging.NullHandler())
    killed = worker.TaskHubGrpcWorker(host_address=sys.argv[1], logger=logger)
    killed.add_orchestrator(one_step)
    killed.add_orchestrator(stuck_turn)
    killed.add_activity(stuck)
    killed.add_entity(stuck_entity)
    killed.use_work_item_filters()
    killed.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
