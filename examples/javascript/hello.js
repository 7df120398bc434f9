"use strict";
// Three activities in sequence. Worker and client are in one program here.

const { OrchestrationStatus, NoOpLogger, TaskHubGrpcClient, TaskHubGrpcWorker } = require("@microsoft/durabletask-js");

const hostAddress = process.env.STEADFAST_ADDRESS ?? "localhost:4001";
const logger = new NoOpLogger();

/** Activities do the work that touches the world. */
const greet = async (_context, city) => `Hello, ${city}!`;

/** Orchestrations decide what is done. This one can be interrupted anywhere, and goes on where it was. */
const helloSequence = async function* helloSequence(context, cities) {
  const greetings = [];
  for (const city of cities) greetings.push(yield context.callActivity(greet, city));
  return greetings;
};

async function main() {
  const worker = new TaskHubGrpcWorker({ hostAddress, logger });
  worker.addOrchestrator(helloSequence);
  worker.addActivity(greet);
  await worker.start();

  const client = new TaskHubGrpcClient({ hostAddress, logger });
  try {
    const id = await client.scheduleNewOrchestration(helloSequence, ["Tokyo", "Seattle", "London"]);
    const state = await client.waitForOrchestrationCompletion(id, true, 60);
    state.raiseIfFailed();
    console.log(`${id} is ${OrchestrationStatus[state.runtimeStatus]}: ${state.serializedOutput}`);
  } finally {
    await Promise.all([worker.stop(), client.stop()]);
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
