"use strict";
// Starts orders and decides on them. It needs no code of the worker: names and values are all that is shared.

const { EntityInstanceId, NoOpLogger, TaskHubGrpcClient } = require("@microsoft/durabletask-js");

const hostAddress = process.env.STEADFAST_ADDRESS ?? "localhost:4001";

async function main() {
  const client = new TaskHubGrpcClient({ hostAddress, logger: new NoOpLogger() });
  try {
    // Signals need no answer; the entity is made by the first of them.
    await client.signalEntity(new EntityInstanceId("stock", "cup"), "add", 100);

    const small = await client.scheduleNewOrchestration("order", { article: "cup", pieces: 2, price: 7 });
    const large = await client.scheduleNewOrchestration("order", { article: "cup", pieces: 90, price: 20 });
    await client.raiseOrchestrationEvent(large, "approval", false);

    for (const id of [small, large]) {
      const state = await client.waitForOrchestrationCompletion(id, true, 60);
      state.raiseIfFailed();
      console.log(`order ${id}: ${state.serializedOutput}`);
    }
  } finally {
    await client.stop();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
