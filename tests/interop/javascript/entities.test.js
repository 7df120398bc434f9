"use strict";
// Entities: signals, calls, locks, delayed signals, what they start, and how clients see them.

const assert = require("node:assert/strict");
const { describe, test, beforeEach } = require("node:test");

const { EntityInstanceId, OrchestrationStatus, TaskEntity } = require("@microsoft/durabletask-js");

const { gate, output, unique, until, useServer } = require("./support");

const hub = useServer();

class Counter extends TaskEntity {
  initializeState() {
    return 0;
  }

  add(amount) {
    this.state += amount;
    return this.state;
  }

  get() {
    return this.state;
  }

  addAndFail(amount) {
    this.state += amount;
    throw new RangeError(`not ${amount}`);
  }
}

class Journal extends TaskEntity {
  initializeState() {
    return [];
  }

  note(line) {
    this.state.push(line);
    return this.state.length;
  }

  read() {
    return this.state;
  }

  tell({ to, line, inSeconds }) {
    const options = inSeconds ? { signalTime: new Date(Date.now() + inSeconds * 1000) } : undefined;
    this.context.signalEntity(EntityInstanceId.fromString(to), "note", line, options);
  }

  start({ input, instanceId }) {
    return this.context.scheduleNewOrchestration("announce", input, instanceId ? { instanceId } : undefined);
  }
}

async function* ask(ctx, [id, operation, input]) {
  return yield ctx.entities.callEntity(EntityInstanceId.fromString(id), operation, input);
}

async function* transfer(ctx, [from, to, amount]) {
  const [source, target] = [from, to].map(EntityInstanceId.fromString);
  const lock = yield ctx.entities.lockEntities(source, target);
  const has = yield ctx.entities.callEntity(source, "get");
  const gets = yield ctx.entities.callEntity(target, "get");
  yield ctx.entities.callEntity(source, "add", -amount);
  yield ctx.entities.callEntity(target, "add", amount);
  lock.release();
  return [has, gets];
}

let locked;

beforeEach(async () => {
  locked = gate();
  await hub.worker({
    activities: { locked: () => locked.open() },
    entities: { Counter: () => new Counter(), Journal: () => new Journal() },
    orchestrators: {
      announce: async (ctx, input) => [ctx.instanceId, input],
      ask,
      transfer,
      async *signalTwice(ctx, [id, delay]) {
        const entity = EntityInstanceId.fromString(id);
        ctx.entities.signalEntity(entity, "note", "now");
        const signalTime = new Date(ctx.currentUtcDateTime.getTime() + delay);
        ctx.entities.signalEntity(entity, "note", "later", { signalTime });
      },
      async *caught(ctx, [id, operation, input]) {
        try {
          yield ctx.entities.callEntity(EntityInstanceId.fromString(id), operation, input);
        } catch (error) {
          return [error.name, error.message, error.failureDetails?.errorType];
        }
        return ["no error"];
      },
      async *hold(ctx, id) {
        const lock = yield ctx.entities.lockEntities(EntityInstanceId.fromString(id));
        yield ctx.callActivity("locked");
        yield ctx.waitForExternalEvent("go");
        lock.release();
        return "released";
      },
      async *failWithLock(ctx, id) {
        yield ctx.entities.lockEntities(EntityInstanceId.fromString(id));
        throw new Error("failed while it held the lock");
      },
    },
  });
});

/** Calls an entity by an orchestration, which waits behind everything that was sent to it before. */
async function call(entity, operation, input) {
  const state = await hub.run("ask", [entity.toString(), operation, input]);
  assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED, state.failureDetails?.message);
  return state.serializedOutput ? output(state) : undefined;
}

const counter = () => new EntityInstanceId("Counter", unique());
const journal = () => new EntityInstanceId("Journal", unique());

describe("entities", () => {
  test("are made by signals, which run in order", async () => {
    const entity = journal();
    assert.equal(await hub.client.getEntity(entity), undefined);
    for (let number = 0; number < 10; number += 1) await hub.client.signalEntity(entity, "note", number);
    assert.deepEqual(await call(entity, "read"), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const metadata = await hub.client.getEntity(entity);
    assert.deepEqual(metadata.state, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.equal(metadata.backlogQueueSize, 0);
    assert.equal(metadata.lockedBy, undefined);
    assert.ok(Math.abs(metadata.lastModifiedTime.getTime() - Date.now()) < 60_000);
    const bare = await hub.client.getEntity(entity, false);
    assert.equal(bare.includesState, false);
  });

  test("take concurrent signals of many clients", async () => {
    const entity = counter();
    await Promise.all(Array.from({ length: 200 }, () => hub.client.signalEntity(entity, "add", 1)));
    assert.equal(await call(entity, "get"), 200);
  });

  test("answer calls, and fail them", async () => {
    const entity = counter();
    assert.equal(await call(entity, "add", 5), 5);
    const [name, message, type] = output(await hub.run("caught", [entity.toString(), "addAndFail", 7]));
    assert.match(name, /EntityOperationFailed/);
    assert.match(message, /not 7/);
    assert.equal(type, "RangeError");
    assert.equal(await call(entity, "get"), 5);
    const unknown = output(await hub.run("caught", [entity.toString(), "fly"]));
    assert.match(unknown[1], /fly/);
    const nobody = output(await hub.run("caught", [new EntityInstanceId("Nobody", unique()).toString(), "get"]));
    assert.equal(nobody[2], "EntityTaskNotFound");
  });

  test("that are deleted do not exist, and can come again", async () => {
    const entity = counter();
    await call(entity, "add", 1);
    assert.equal((await hub.client.getEntity(entity)).state, 1);
    await call(entity, "delete");
    assert.equal(await hub.client.getEntity(entity), undefined);
    assert.equal(await call(entity, "add", 2), 2);
  });

  test("with a state of zero exist", async () => {
    const entity = counter();
    await call(entity, "add", 0);
    assert.equal((await hub.client.getEntity(entity)).state, 0);
  });

  test("get delayed signals of clients, orchestrations and entities at their time", async () => {
    const entity = journal();
    const asked = Date.now();
    await hub.client.signalEntity(entity, "note", "delayed", { signalTime: new Date(asked + 1000) });
    assert.equal(await hub.client.getEntity(entity), undefined);
    await until(async () => (await hub.client.getEntity(entity))?.state.length === 1);
    assert.ok(Date.now() - asked >= 1000);

    const second = journal();
    const began = Date.now();
    await hub.run("signalTwice", [second.toString(), 1000]);
    assert.deepEqual(await call(second, "read"), ["now"]);
    await until(async () => (await hub.client.getEntity(second)).state.length === 2);
    assert.ok(Date.now() - began >= 1000);

    const third = journal();
    const told = Date.now();
    await call(second, "tell", { to: third.toString(), line: "hello", inSeconds: 1 });
    assert.equal(await hub.client.getEntity(third), undefined);
    await until(async () => await hub.client.getEntity(third));
    assert.ok(Date.now() - told >= 1000);
    assert.deepEqual(await call(third, "read"), ["hello"]);
  });

  test("start orchestrations", async () => {
    const entity = journal();
    const given = unique("started");
    assert.equal(await call(entity, "start", { input: 1, instanceId: given }), given);
    assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(given, true, 30)), [given, 1]);
    const made = await call(entity, "start", { input: 2 });
    assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(made, true, 30)), [made, 2]);
  });

  test("are queried in pages", async () => {
    const key = unique("page");
    for (let number = 0; number < 5; number += 1) await call(new EntityInstanceId("Counter", `${key}${number}`), "add", number);
    const found = [];
    for await (const entity of hub.client.getEntities({ instanceIdStartsWith: `@counter@${key}`, pageSize: 2 })) {
      found.push([entity.id.key, entity.state]);
    }
    assert.deepEqual(found.sort(), [0, 1, 2, 3, 4].map((number) => [`${key}${number}`, number]));
  });

  test("leave nothing to clean", async () => {
    const entity = counter();
    await call(entity, "add", 1);
    await call(entity, "delete");
    const result = await hub.client.cleanEntityStorage();
    assert.equal(result.emptyEntitiesRemoved, 0);
    assert.equal(result.orphanedLocksReleased, 0);
  });

  test("have ids of at most a hundred characters", async () => {
    await assert.rejects(
      hub.client.signalEntity(new EntityInstanceId("Counter", "k".repeat(100)), "add", 1), /length/i);
  });
});

describe("critical sections", () => {
  test("keep transfers apart", async () => {
    const accounts = [counter(), counter(), counter()].map(String);
    await hub.client.signalEntity(EntityInstanceId.fromString(accounts[0]), "add", 1000);
    const pairs = [[0, 1], [1, 2], [2, 0], [1, 0], [0, 2], [2, 1], [0, 1], [1, 2], [2, 0], [1, 0], [0, 2], [2, 1]];
    const states = await Promise.all(pairs.map(([from, to]) => hub.run("transfer", [accounts[from], accounts[to], 1])));
    assert.ok(states.every((state) => state.runtimeStatus === OrchestrationStatus.COMPLETED));
    const balances = [];
    for (const account of accounts) balances.push(await call(EntityInstanceId.fromString(account), "get"));
    assert.deepEqual(balances, [1000, 0, 0]);
  });

  test("show their owner, and hold others back", async () => {
    const entity = counter();
    const owner = await hub.client.scheduleNewOrchestration("hold", entity.toString(), unique("owner"));
    await locked.opened;
    const other = await hub.client.scheduleNewOrchestration("ask", [entity.toString(), "add", 1]);
    await assert.rejects(hub.client.waitForOrchestrationCompletion(other, true, 1));
    await hub.client.raiseOrchestrationEvent(owner, "go");
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(owner, true, 30)), "released");
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(other, true, 30)), 1);
  });

  test("end with their owner's failure", async () => {
    const entity = counter();
    const failed = await hub.run("failWithLock", entity.toString());
    assert.equal(failed.runtimeStatus, OrchestrationStatus.FAILED);
    assert.equal(await call(entity, "add", 3), 3);
    assert.equal((await hub.client.getEntity(entity)).lockedBy, undefined);
  });
});
