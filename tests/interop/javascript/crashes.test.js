"use strict";
// The server is killed while orchestrations, timers, entities and waits are under way. The worker stays and comes back.

const assert = require("node:assert/strict");
const { test } = require("node:test");

const { EntityInstanceId, OrchestrationStatus, TaskEntity, TaskHubGrpcClient } = require("@microsoft/durabletask-js");

const { logger, output, useServer } = require("./support");

const hub = useServer();

class Counter extends TaskEntity {
  initializeState() {
    return 0;
  }

  add(amount) {
    this.state += amount;
    return this.state;
  }
}

test("a killed server goes on where it was", async () => {
  let reached = 0;
  let all;
  const everybodyReached = new Promise((resolve) => (all = resolve));
  await hub.worker({
    activities: {
      reach() {
        reached += 1;
        if (reached === 8) all();
      },
    },
    entities: { Counter: () => new Counter() },
    orchestrators: {
      async *event(ctx, id) {
        const guid = ctx.newGuid();
        yield ctx.callActivity("reach");
        const event = yield ctx.waitForExternalEvent("go");
        const sum = yield ctx.entities.callEntity(EntityInstanceId.fromString(id), "add", 1);
        return [event, guid === ctx.newGuid(), sum > 0];
      },
      async *timer(ctx) {
        const before = ctx.currentUtcDateTime.getTime();
        yield ctx.callActivity("reach");
        yield ctx.createTimer(new Date(before + 3000));
        return ctx.currentUtcDateTime.getTime() - before;
      },
    },
  });
  const entity = new EntityInstanceId("Counter", "one");
  const events = [];
  for (let number = 0; number < 5; number += 1) {
    events.push(await hub.client.scheduleNewOrchestration("event", entity.toString(), `event${number}`));
  }
  const timers = [];
  for (let number = 0; number < 3; number += 1) {
    timers.push(await hub.client.scheduleNewOrchestration("timer", undefined, `timer${number}`));
  }
  await everybodyReached;
  await hub.client.signalEntity(entity, "add", 10);
  const lost = assert.rejects(hub.client.waitForOrchestrationCompletion("event0", true, 60), { code: 14 });
  await hub.server.kill();
  await lost;
  await hub.server.start();

  // A client of its own: the old one's connection has its back-off.
  const client = new TaskHubGrpcClient({ hostAddress: hub.server.address, logger });
  for (const id of events) await client.raiseOrchestrationEvent(id, "go", id);
  for (const id of events) {
    const state = await client.waitForOrchestrationCompletion(id, true, 60);
    assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED, state.failureDetails?.message);
    assert.deepEqual(output(state), [id, false, true]);
  }
  for (const id of timers) {
    const state = await client.waitForOrchestrationCompletion(id, true, 60);
    assert.ok(output(state) >= 3000);
  }
  assert.equal((await client.getEntity(entity)).state, 15);
  await client.stop();
});
