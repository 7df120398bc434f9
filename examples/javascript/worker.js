"use strict";
// Runs orders until it is stopped. Start as many of these as you like: they share the work.
//
// An order is charged, with retries, and large ones wait for somebody's approval first, but not for ever. The stock is an entity,
// of which there is one for each article.

const {
  EntityInstanceId, NoOpLogger, RetryPolicy, TaskEntity, TaskHubGrpcWorker, whenAny,
} = require("@microsoft/durabletask-js");

const hostAddress = process.env.STEADFAST_ADDRESS ?? "localhost:4001";

const approvalFrom = 1000;
const threeDays = 3 * 24 * 3600;
const retry = new RetryPolicy({ maxNumberOfAttempts: 5, firstRetryIntervalInMilliseconds: 1000, backoffCoefficient: 2 });

/** How many pieces of an article there are. Its operations run one at a time. */
class Stock extends TaskEntity {
  initializeState() {
    return 0;
  }

  add(pieces) {
    this.state += pieces;
    return this.state;
  }

  take(pieces) {
    if (this.state < pieces) return false;
    this.state -= pieces;
    return true;
  }
}

/** An activity may run more than once; what it does outside should be told apart by this key. */
const charge = async (context, amount) => `receipt ${context.orchestrationId}/${context.taskId} over ${amount}`;

const order = async function* order(context, { article, pieces, price }) {
  const stock = new EntityInstanceId("stock", article);
  const amount = pieces * price;

  if (amount >= approvalFrom) {
    context.setCustomStatus("waiting for approval");
    const approval = context.waitForExternalEvent("approval");
    const deadline = context.createTimer(threeDays);
    const winner = yield whenAny([approval, deadline]);
    if (winner === deadline || !approval.getResult()) return { status: "rejected" };
    deadline.cancel();
  }

  context.setCustomStatus("in work");
  if (!(yield context.entities.callEntity(stock, "take", pieces))) return { status: "sold out" };
  const receipt = yield context.callActivity(charge, amount, { retry });
  return { status: "paid", receipt };
};

async function main() {
  // Only what is registered here comes here, so that other workers can run other things.
  const worker = new TaskHubGrpcWorker({ hostAddress, logger: new NoOpLogger(), workItemFilters: "auto" });
  worker.addOrchestrator(order);
  worker.addActivity(charge);
  worker.addNamedEntity("stock", () => new Stock());
  await worker.start();
  console.log(`works for ${hostAddress}; Ctrl-C stops it`);
  process.once("SIGINT", () => worker.stop());
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
