"use strict";
// Orchestrations, activities, timers, events, children, generations.

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");

const { HistoryEventType, OrchestrationStatus, RetryPolicy, whenAll, whenAny } = require("@microsoft/durabletask-js");

const { gate, output, unique, useServer } = require("./support");

const hub = useServer();

const hello = (_, name) => `Hello, ${name}!`;

describe("activities", () => {
  test("run one after the other, and leave an exact history", async () => {
    await hub.worker({
      activities: { hello },
      orchestrators: {
        async *sequence(ctx) {
          const greetings = [];
          for (const city of ["Tokyo", "Seattle", "London"]) greetings.push(yield ctx.callActivity("hello", city));
          return greetings;
        },
      },
    });
    const state = await hub.run("sequence", null, { tags: { team: "red" } });
    assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED);
    assert.deepEqual(output(state), ["Hello, Tokyo!", "Hello, Seattle!", "Hello, London!"]);
    assert.equal(state.name, "sequence");
    assert.equal(state.failureDetails, undefined);
    assert.deepEqual(state.tags, { team: "red" });
    const events = await hub.client.getOrchestrationHistory(state.instanceId);
    const { OrchestratorStarted, ExecutionStarted, TaskScheduled, TaskCompleted, ExecutionCompleted } = HistoryEventType;
    assert.deepEqual(events.map((event) => event.type), [
      OrchestratorStarted, ExecutionStarted, TaskScheduled,
      OrchestratorStarted, TaskCompleted, TaskScheduled,
      OrchestratorStarted, TaskCompleted, TaskScheduled,
      OrchestratorStarted, TaskCompleted, ExecutionCompleted,
    ]);
    const ids = events.map((event) => event.eventId).filter((id) => id >= 0);
    assert.deepEqual(ids, [1, 2, 3, 4]);
    assert.ok(events.every((event) => event.timestamp.getTime() > 0));
    assert.deepEqual(events[1].tags, { team: "red" });
  });

  test("two hundred in parallel", async () => {
    await hub.worker({
      activities: { square: (_, number) => number * number },
      orchestrators: {
        async *fanOut(ctx, width) {
          return yield whenAll(Array.from({ length: width }, (_, number) => ctx.callActivity("square", number)));
        },
      },
    });
    assert.deepEqual(output(await hub.run("fanOut", 200)), Array.from({ length: 200 }, (_, number) => number * number));
  });

  test("give and take every kind of value", async () => {
    await hub.worker({
      activities: { echo: (_, input) => [input] },
      orchestrators: {
        async *passOn(ctx, input) {
          return [input, yield ctx.callActivity("echo", input)];
        },
      },
    });
    for (const value of [null, 0, false, "", [], {}, -1.5, "snow ☃ and 😀", { a: [{ b: null }] }, '"quoted\\"']) {
      assert.deepEqual(output(await hub.run("passOn", value)), [value, [value]]);
    }
  });

  test("without input and result", async () => {
    await hub.worker({
      activities: { nothing: () => undefined },
      orchestrators: {
        async *bare(ctx) {
          const result = yield ctx.callActivity("nothing");
          return result === undefined ? "undefined" : result;
        },
      },
    });
    const state = await hub.run("bare");
    assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED);
    assert.equal(output(state), "undefined");
  });

  test("that fail, and are caught or not", async () => {
    class OutOfStock extends Error {}
    await hub.worker({
      activities: {
        sell() {
          throw new OutOfStock("no more cups");
        },
      },
      orchestrators: {
        async *careless(ctx) {
          yield ctx.callActivity("sell");
        },
        async *careful(ctx) {
          try {
            yield ctx.callActivity("sell");
          } catch (error) {
            return error.message;
          }
        },
      },
    });
    const failed = await hub.run("careless");
    assert.equal(failed.runtimeStatus, OrchestrationStatus.FAILED);
    assert.match(failed.failureDetails.message, /no more cups/);
    assert.throws(() => failed.raiseIfFailed(), /no more cups/);
    assert.match(output(await hub.run("careful")), /no more cups/);
  });

  test("are retried by a policy, under a new number each time", async () => {
    let attempts = 0;
    await hub.worker({
      activities: {
        flaky() {
          attempts += 1;
          if (attempts < 3) throw new Error(`attempt ${attempts}`);
          return attempts;
        },
      },
      orchestrators: {
        async *persistent(ctx) {
          const retry = new RetryPolicy({ maxNumberOfAttempts: 5, firstRetryIntervalInMilliseconds: 50 });
          return yield ctx.callActivity("flaky", undefined, { retry });
        },
      },
    });
    const state = await hub.run("persistent");
    assert.equal(output(state), 3);
    const events = await hub.client.getOrchestrationHistory(state.instanceId);
    const scheduled = events.filter((event) => event.type === HistoryEventType.TaskScheduled);
    assert.equal(scheduled.length, 3);
    assert.equal(new Set(scheduled.map((event) => event.eventId)).size, 3);
  });

  test("are retried by a handler that sees the type of the failure", async () => {
    class Transient extends Error {
      constructor(message) {
        super(message);
        this.name = "Transient";
      }
    }
    let attempts = 0;
    const seen = [];
    await hub.worker({
      activities: {
        flaky() {
          attempts += 1;
          throw attempts < 3 ? new Transient("again") : new Error("for good");
        },
      },
      orchestrators: {
        async *choosy(ctx) {
          const retry = async (context) => {
            seen.push(context.lastFailure.errorType);
            return context.lastFailure.errorType === "Transient";
          };
          yield ctx.callActivity("flaky", undefined, { retry });
        },
      },
    });
    const state = await hub.run("choosy");
    assert.equal(state.runtimeStatus, OrchestrationStatus.FAILED);
    assert.equal(attempts, 3);
    assert.equal(seen[0], "Transient");
  });

  test("that nobody knows, and orchestrations that nobody knows", async () => {
    await hub.worker({
      orchestrators: {
        async *hopeful(ctx) {
          yield ctx.callActivity("nobodyKnowsThis");
        },
      },
    });
    const state = await hub.run("hopeful");
    assert.equal(state.runtimeStatus, OrchestrationStatus.FAILED);
    assert.match(state.failureDetails.message, /nobodyKnowsThis/);
    const unknown = await hub.run("nobodyKnowsThisEither");
    assert.equal(unknown.runtimeStatus, OrchestrationStatus.FAILED);
    assert.match(unknown.failureDetails.message, /nobodyKnowsThisEither/);
  });

  test("a thousand orchestrations at once", async () => {
    await hub.worker({
      activities: { hello },
      orchestrators: {
        async *greet(ctx, number) {
          return yield ctx.callActivity("hello", String(number));
        },
      },
    });
    const ids = await Promise.all(
      Array.from({ length: 1000 }, (_, number) => hub.client.scheduleNewOrchestration("greet", number)));
    const states = await Promise.all(ids.map((id) => hub.client.waitForOrchestrationCompletion(id, true, 90)));
    assert.deepEqual(states.map(output), Array.from({ length: 1000 }, (_, number) => `Hello, ${number}!`));
  });
});

describe("timers", () => {
  test("fire, and not early, though this SDK sends a start in 1970 with each instance", async () => {
    await hub.worker({
      orchestrators: {
        async *nap(ctx, seconds) {
          const before = ctx.currentUtcDateTime.getTime();
          yield ctx.createTimer(seconds);
          return [before, ctx.currentUtcDateTime.getTime()];
        },
      },
    });
    const asked = Date.now();
    const state = await hub.run("nap", 1);
    const [before, after] = output(state);
    assert.ok(before >= asked - 1, `the first turn was at ${before}, not before ${asked}`);
    assert.ok(after - before >= 1000);
    assert.ok(state.lastUpdatedAt.getTime() - state.createdAt.getTime() >= 1000);
  });

  test("lose against an activity and are cancelled", async () => {
    await hub.worker({
      activities: { hello },
      orchestrators: {
        async *race(ctx) {
          const timer = ctx.createTimer(3600);
          const activity = ctx.callActivity("hello", "winner");
          const first = yield whenAny([timer, activity]);
          if (first === activity) timer.cancel();
          return first === activity ? activity.getResult() : "too late";
        },
      },
    });
    assert.equal(output(await hub.run("race")), "Hello, winner!");
  });

  test("a start in the future waits", async () => {
    await hub.worker({ orchestrators: { due: async (ctx) => ctx.currentUtcDateTime.getTime() } });
    const startAt = new Date(Date.now() + 1500);
    const id = await hub.client.scheduleNewOrchestration("due", undefined, { startAt });
    const pending = await hub.client.getOrchestrationState(id);
    assert.equal(pending.runtimeStatus, OrchestrationStatus.PENDING);
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 30);
    assert.ok(output(state) >= startAt.getTime());
  });
});

describe("events", () => {
  test("early and late ones, in any case, in order", async () => {
    await hub.worker({
      orchestrators: {
        async *gather(ctx, count) {
          const got = [];
          while (got.length < count) got.push(yield ctx.waitForExternalEvent("Number"));
          return got;
        },
      },
    });
    const id = await hub.client.scheduleNewOrchestration("gather", 50);
    for (let number = 0; number < 50; number += 1) await hub.client.raiseOrchestrationEvent(id, "nUMBER", number);
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 60);
    assert.deepEqual(output(state), Array.from({ length: 50 }, (_, number) => number));
  });

  test("without data", async () => {
    await hub.worker({
      orchestrators: {
        async *one(ctx) {
          const data = yield ctx.waitForExternalEvent("bare");
          return data === null || data === undefined ? "nothing" : data;
        },
      },
    });
    const id = await hub.client.scheduleNewOrchestration("one");
    await hub.client.raiseOrchestrationEvent(id, "bare");
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(id, true, 30)), "nothing");
  });

  test("from one orchestration to another, exactly once", async () => {
    await hub.worker({
      orchestrators: {
        async *sender(ctx, target) {
          ctx.sendEvent(target, "word", "first");
          yield ctx.createTimer(0.01);
          yield ctx.createTimer(0.01);
          ctx.sendEvent(target, "word", "last");
          ctx.sendEvent(`${target}-nobody`, "word", "lost");
          return "sent";
        },
        async *receiver(ctx) {
          const words = [];
          while (words.at(-1) !== "last") words.push(yield ctx.waitForExternalEvent("word"));
          return words;
        },
      },
    });
    const receiver = await hub.client.scheduleNewOrchestration("receiver", undefined, unique("receiver"));
    assert.equal(output(await hub.run("sender", receiver)), "sent");
    assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(receiver, true, 30)), ["first", "last"]);
  });

  test("for nobody are refused", async () => {
    await assert.rejects(hub.client.raiseOrchestrationEvent(unique("nobody"), "anything"), { code: 5 });
  });
});

describe("children", () => {
  test("have ids of their parent's execution, and know their parent", async () => {
    await hub.worker({
      orchestrators: {
        child: async (ctx, input) => ({ id: ctx.instanceId, parent: ctx.parent, input }),
        async *parent(ctx) {
          return yield ctx.callSubOrchestrator("child", 7);
        },
      },
    });
    const state = await hub.run("parent");
    const child = output(state);
    assert.match(child.id, /^[0-9a-f]{32}:[0-9a-f]{4}$/);
    assert.equal(child.input, 7);
    assert.deepEqual(child.parent, { name: "parent", instanceId: state.instanceId, taskScheduledId: 1 });
    const started = (await hub.client.getOrchestrationHistory(state.instanceId))[1];
    assert.equal(started.orchestrationInstance.executionId, child.id.split(":")[0]);
  });

  test("a hundred, with grandchildren", async () => {
    await hub.worker({
      orchestrators: {
        leaf: async (_, number) => number,
        async *branch(ctx, number) {
          return yield ctx.callSubOrchestrator("leaf", number);
        },
        async *tree(ctx, width) {
          return yield whenAll(Array.from({ length: width }, (_, number) => ctx.callSubOrchestrator("branch", number)));
        },
      },
    });
    assert.deepEqual(output(await hub.run("tree", 100)), Array.from({ length: 100 }, (_, number) => number));
  });

  test("that fail are retried, and their failure is told unchanged", async () => {
    let attempts = 0;
    const types = [];
    await hub.worker({
      orchestrators: {
        async *child() {
          attempts += 1;
          if (attempts < 3) throw new RangeError(`attempt ${attempts}`);
          return "at last";
        },
        async *parent(ctx) {
          const retry = async (context) => {
            types.push(context.lastFailure.errorType);
            return true;
          };
          return yield ctx.callSubOrchestrator("child", undefined, { retry });
        },
      },
    });
    assert.equal(output(await hub.run("parent")), "at last");
    assert.ok(types.length >= 2 && types.every((type) => type === "RangeError"), String(types));
  });

  test("of many generations do not meet", async () => {
    await hub.worker({
      orchestrators: {
        child: async (ctx, number) => [ctx.instanceId, number],
        async *parent(ctx, seen) {
          seen.push(yield ctx.callSubOrchestrator("child", seen.length));
          if (seen.length < 5) {
            ctx.continueAsNew(seen, false);
            return undefined;
          }
          return seen;
        },
      },
    });
    const seen = output(await hub.run("parent", []));
    assert.deepEqual(seen.map(([, number]) => number), [0, 1, 2, 3, 4]);
    assert.equal(new Set(seen.map(([id]) => id)).size, 5);
  });
});

describe("continuing as new", () => {
  test("a hundred generations", async () => {
    await hub.worker({
      activities: { next: (_, number) => number + 1 },
      orchestrators: {
        async *counting(ctx, number) {
          const following = yield ctx.callActivity("next", number);
          if (following < 100) {
            ctx.continueAsNew(following, false);
            return undefined;
          }
          return following;
        },
      },
    });
    const state = await hub.run("counting", 0);
    assert.equal(output(state), 100);
    assert.equal(state.serializedInput, "99");
  });

  test("with events in flight", async () => {
    await hub.worker({
      orchestrators: {
        async *eating(ctx, eaten) {
          eaten.push(yield ctx.waitForExternalEvent("food"));
          if (eaten.length < 50) {
            ctx.continueAsNew(eaten, true);
            return undefined;
          }
          return eaten;
        },
      },
    });
    const id = await hub.client.scheduleNewOrchestration("eating", []);
    for (let number = 0; number < 50; number += 1) await hub.client.raiseOrchestrationEvent(id, "food", number);
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 60);
    assert.deepEqual(output(state), Array.from({ length: 50 }, (_, number) => number));
  });
});

describe("ids and status", () => {
  test("guids are the same when code is replayed", async () => {
    const made = [];
    await hub.worker({
      activities: { note: (_, id) => made.push(id) },
      orchestrators: {
        async *making(ctx) {
          const ids = [];
          for (let number = 0; number < 4; number += 1) {
            ids.push(ctx.newGuid());
            yield ctx.callActivity("note", ids.at(-1));
          }
          return ids;
        },
      },
    });
    const ids = output(await hub.run("making"));
    assert.deepEqual(ids, made);
    assert.equal(new Set(ids).size, 4);
  });

  test("custom status, to the letter", async () => {
    const [first, second] = [gate(), gate()];
    await hub.worker({
      activities: { note: (_, number) => [first, second][number].open() },
      orchestrators: {
        async *telling(ctx) {
          ctx.setCustomStatus({ step: 1 });
          yield ctx.callActivity("note", 0);
          yield ctx.waitForExternalEvent("next");
          ctx.setCustomStatus("two");
          yield ctx.callActivity("note", 1);
          yield ctx.waitForExternalEvent("next");
          ctx.setCustomStatus("");
        },
      },
    });
    const id = await hub.client.scheduleNewOrchestration("telling");
    await first.opened;
    assert.equal((await hub.client.getOrchestrationState(id)).serializedCustomStatus, '{"step":1}');
    await hub.client.raiseOrchestrationEvent(id, "next");
    await second.opened;
    assert.equal((await hub.client.getOrchestrationState(id)).serializedCustomStatus, '"two"');
    await hub.client.raiseOrchestrationEvent(id, "next");
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 30);
    assert.equal(state.serializedCustomStatus, '""');
  });

  test("8 MiB through an orchestration, an activity and an event", async () => {
    await hub.worker({
      activities: { long: (_, length) => "y".repeat(length) },
      orchestrators: {
        async *large(ctx, text) {
          const result = yield ctx.callActivity("long", text.length);
          const event = yield ctx.waitForExternalEvent("text");
          return [text.length, result.length, event];
        },
      },
    });
    const size = 8 << 20;
    const id = await hub.client.scheduleNewOrchestration("large", "x".repeat(size));
    await hub.client.raiseOrchestrationEvent(id, "text", "z".repeat(size));
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 90);
    assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED);
    const [input, result, event] = output(state);
    assert.deepEqual([input, result, event], [size, size, "z".repeat(size)]);
    assert.equal(state.serializedInput.length, size + 2);
  });
});

describe("waits", () => {
  test("for a start", async () => {
    const id = await hub.client.scheduleNewOrchestration("slowStart");
    const waiting = hub.client.waitForOrchestrationStart(id, false, 30);
    await hub.worker({
      orchestrators: {
        async *slowStart(ctx) {
          yield ctx.waitForExternalEvent("end");
        },
      },
    });
    assert.equal((await waiting).runtimeStatus, OrchestrationStatus.RUNNING);
    await hub.client.raiseOrchestrationEvent(id, "end");
    await hub.client.waitForOrchestrationCompletion(id, true, 30);
  });

  test("that run out of time leave the instance alone", async () => {
    await hub.worker({
      orchestrators: {
        async *waiting(ctx) {
          return yield ctx.waitForExternalEvent("end");
        },
      },
    });
    const id = await hub.client.scheduleNewOrchestration("waiting");
    // The SDK leaves the call to itself; it is answered when the instance ends, and nobody listens.
    await Promise.all(Array.from({ length: 100 }, () =>
      assert.rejects(hub.client.waitForOrchestrationCompletion(id, true, 0.5))));
    await hub.client.raiseOrchestrationEvent(id, "end", "well");
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(id, true, 30)), "well");
  });

  test("unknown instances do not exist", async () => {
    assert.equal(await hub.client.getOrchestrationState(unique("nobody")), undefined);
    assert.deepEqual(await hub.client.getOrchestrationHistory(unique("nobody")), []);
  });
});
