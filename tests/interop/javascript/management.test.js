"use strict";
// What clients do with instances: suspend, terminate, rewind, restart, purge, query; and versions and filters.

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");

const {
  OrchestrationStatus, PurgeInstanceCriteria, VersionFailureStrategy, VersionMatchStrategy, terminateOptions,
} = require("@microsoft/durabletask-js");

const { gate, output, unique, useServer } = require("./support");

const hub = useServer();

async function* waiting(ctx, input) {
  return [input, yield ctx.waitForExternalEvent("end")];
}

/** An instance that waits for the event "end". */
async function started(options) {
  await hub.worker({ orchestrators: { waiting, quick: async (_, input) => input }, workItemFilters: "auto" });
  const id = await hub.client.scheduleNewOrchestration("waiting", "in", options);
  await hub.client.waitForOrchestrationStart(id, false, 30);
  return id;
}

const status = async (id) => (await hub.client.getOrchestrationState(id)).runtimeStatus;

describe("a running instance", () => {
  test("is suspended and resumed", async () => {
    const id = await started();
    await hub.client.suspendOrchestration(id);
    assert.equal(await status(id), OrchestrationStatus.SUSPENDED);
    await hub.client.suspendOrchestration(id);
    await hub.client.raiseOrchestrationEvent(id, "end", 1);
    await assert.rejects(hub.client.waitForOrchestrationCompletion(id, true, 1));
    assert.equal(await status(id), OrchestrationStatus.SUSPENDED);
    await hub.client.resumeOrchestration(id);
    assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(id, true, 30)), ["in", 1]);
  });

  test("is terminated", async () => {
    const id = await started();
    await hub.client.terminateOrchestration(id, { why: "enough" });
    const state = await hub.client.waitForOrchestrationCompletion(id, true, 30);
    assert.equal(state.runtimeStatus, OrchestrationStatus.TERMINATED);
    assert.deepEqual(output(state), { why: "enough" });
    const bare = await started();
    await hub.client.terminateOrchestration(bare);
    const ended = await hub.client.waitForOrchestrationCompletion(bare, true, 30);
    assert.equal(ended.serializedOutput, "null");
  });

  for (const recursive of [true, false]) {
    test(`is terminated ${recursive ? "with" : "without"} its children`, async () => {
      const reached = gate();
      await hub.worker({
        activities: { note: () => reached.open() },
        orchestrators: {
          async *leaf(ctx) {
            yield ctx.callActivity("note");
            return yield ctx.waitForExternalEvent("end");
          },
          async *tree(ctx) {
            return yield ctx.callSubOrchestrator("leaf", undefined, { instanceId: `${ctx.instanceId}-leaf` });
          },
        },
      });
      const id = await hub.client.scheduleNewOrchestration("tree", undefined, unique("tree"));
      await reached.opened;
      await hub.client.terminateOrchestration(id, terminateOptions({ output: "cut", recursive }));
      const state = await hub.client.waitForOrchestrationCompletion(id, true, 30);
      assert.equal(state.runtimeStatus, OrchestrationStatus.TERMINATED);
      if (!recursive) await hub.client.raiseOrchestrationEvent(`${id}-leaf`, "end", "grown");
      const leaf = await hub.client.waitForOrchestrationCompletion(`${id}-leaf`, true, 30);
      assert.equal(leaf.runtimeStatus, recursive ? OrchestrationStatus.TERMINATED : OrchestrationStatus.COMPLETED);
    });
  }

  test("is restarted under a new id, and not under its own", async () => {
    const id = await started();
    await assert.rejects(hub.client.restartOrchestration(id, false), /cannot be restarted/);
    const renewed = await hub.client.restartOrchestration(id, true);
    assert.notEqual(renewed, id);
    for (const one of [id, renewed]) {
      await hub.client.raiseOrchestrationEvent(one, "end", one);
      assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(one, true, 30)), ["in", one]);
    }
    assert.equal(await hub.client.restartOrchestration(id, false), id);
    await hub.client.raiseOrchestrationEvent(id, "end", "again");
    assert.deepEqual(output(await hub.client.waitForOrchestrationCompletion(id, true, 30)), ["in", "again"]);
  });

  test("keeps its id for itself", async () => {
    const id = await started(unique("taken"));
    await assert.rejects(hub.client.scheduleNewOrchestration("waiting", "other", id), { code: 6 });
    await hub.client.terminateOrchestration(id);
  });
});

describe("rewinding", () => {
  test("does failed work again, also in children, and twice", async () => {
    let bad = true;
    const counted = [];
    await hub.worker({
      activities: {
        steady(_, name) {
          counted.push(name);
          return name;
        },
        flaky(_, name) {
          if (bad) throw new Error(`${name} failed`);
          return `${name} is well`;
        },
      },
      orchestrators: {
        async *child(ctx, name) {
          yield ctx.callActivity("steady", name);
          return yield ctx.callActivity("flaky", name);
        },
        async *parent(ctx) {
          yield ctx.callActivity("steady", "parent");
          return yield ctx.callSubOrchestrator("child", "child");
        },
      },
    });
    const failed = await hub.run("parent");
    assert.equal(failed.runtimeStatus, OrchestrationStatus.FAILED);
    await hub.client.rewindInstance(failed.instanceId, "hope");
    const again = await hub.client.waitForOrchestrationCompletion(failed.instanceId, true, 30);
    assert.equal(again.runtimeStatus, OrchestrationStatus.FAILED);
    bad = false;
    await hub.client.rewindInstance(failed.instanceId, "certainty");
    const state = await hub.client.waitForOrchestrationCompletion(failed.instanceId, true, 30);
    assert.equal(state.runtimeStatus, OrchestrationStatus.COMPLETED);
    assert.equal(output(state), "child is well");
    assert.deepEqual(counted, ["parent", "child"]);
  });

  test("is refused for what has not failed", async () => {
    await assert.rejects(hub.client.rewindInstance(unique("nobody"), "?"));
    const id = await started();
    await assert.rejects(hub.client.rewindInstance(id, "?"), /not allow|precondition|running/i);
    await hub.client.terminateOrchestration(id);
  });
});

describe("purging", () => {
  test("one, many, and with children", async () => {
    await hub.worker({
      orchestrators: {
        leaf: async () => null,
        async *tree(ctx) {
          yield ctx.callSubOrchestrator("leaf");
        },
      },
    });
    const { instanceId } = await hub.run("tree");
    assert.equal((await hub.client.purgeOrchestration(instanceId)).deletedInstanceCount, 1);
    assert.equal(await hub.client.getOrchestrationState(instanceId), undefined);
    const second = await hub.run("tree");
    assert.equal((await hub.client.purgeOrchestration(second.instanceId, { recursive: true })).deletedInstanceCount, 2);
    const from = new Date();
    for (let number = 0; number < 3; number += 1) await hub.run("leaf");
    const criteria = new PurgeInstanceCriteria();
    criteria.setCreatedTimeFrom(from);
    criteria.setRuntimeStatusList([OrchestrationStatus.COMPLETED]);
    assert.equal((await hub.client.purgeOrchestration(criteria)).deletedInstanceCount, 3);
    assert.equal((await hub.client.purgeOrchestration(unique("nobody"))).deletedInstanceCount, 0);
  });
});

describe("queries", () => {
  test("by prefix and status, in pages", async () => {
    const prefix = unique("query");
    await hub.worker({
      orchestrators: {
        async mixed(_, fails) {
          if (fails) throw new Error("as asked");
          return "well";
        },
      },
    });
    const from = new Date();
    const ids = [];
    for (let number = 0; number < 10; number += 1) {
      const state = await hub.run("mixed", number % 2 === 1, `${prefix}-${number}`);
      ids.push(state.instanceId);
    }
    const found = [];
    for await (const state of hub.client.getAllInstances({ instanceIdPrefix: prefix, pageSize: 3 })) {
      found.push(state.instanceId);
    }
    assert.deepEqual([...found].sort(), ids);
    const sizes = [];
    for await (const page of hub.client.getAllInstances({ instanceIdPrefix: prefix }).asPages(undefined, 4)) {
      sizes.push(page.values.length);
    }
    assert.deepEqual(sizes.filter((size) => size > 0), [4, 4, 2]);
    const failed = [];
    for await (const state of hub.client.getAllInstances({
      createdFrom: from, instanceIdPrefix: prefix, statuses: [OrchestrationStatus.FAILED], fetchInputsAndOutputs: true,
    })) {
      assert.equal(state.runtimeStatus, OrchestrationStatus.FAILED);
      assert.equal(state.serializedInput, "true");
      failed.push(state.instanceId);
    }
    assert.deepEqual(failed.sort(), ids.filter((_, number) => number % 2 === 1));
    const listed = [];
    let lastInstanceKey;
    do {
      const page = await hub.client.listInstanceIds({ completedTimeFrom: from, pageSize: 3, lastInstanceKey });
      listed.push(...page.values);
      lastInstanceKey = page.continuationToken;
    } while (lastInstanceKey);
    assert.deepEqual(listed.filter((id) => id.startsWith(prefix)).sort(), ids);
  });
});

describe("versions", () => {
  const versioned = async (ctx) => ctx.version;

  test("travel to the code, and are empty where none is given", async () => {
    await hub.worker({ orchestrators: { versioned } });
    assert.equal(output(await hub.run("versioned", null, { version: "1.2.3" })), "1.2.3");
    assert.equal(output(await hub.run("versioned")), "");
  });

  test("that do not fit fail their instance, if the worker says so", async () => {
    await hub.worker({
      orchestrators: { versioned },
      versioning: {
        version: "2.0.0", matchStrategy: VersionMatchStrategy.CurrentOrOlder,
        failureStrategy: VersionFailureStrategy.Fail,
      },
    });
    assert.equal(output(await hub.run("versioned", null, { version: "1.9.0" })), "1.9.0");
    const state = await hub.run("versioned", null, { version: "10.0.0" });
    assert.equal(state.runtimeStatus, OrchestrationStatus.FAILED);
  });

  test("that do not fit wait for a worker that fits, if this one rejects", async () => {
    const versioning = (version) => ({
      version, matchStrategy: VersionMatchStrategy.Strict, failureStrategy: VersionFailureStrategy.Reject,
    });
    await hub.worker({ orchestrators: { versioned }, versioning: versioning("1.0.0") });
    const id = await hub.client.scheduleNewOrchestration("versioned", null, { version: "2.0.0" });
    await assert.rejects(hub.client.waitForOrchestrationCompletion(id, true, 2));
    assert.equal(await status(id), OrchestrationStatus.PENDING);
    await hub.worker({ orchestrators: { versioned }, versioning: versioning("2.0.0") });
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(id, true, 60)), "2.0.0");
  });
});

describe("filters", () => {
  test("by name and version; activities have the version of their orchestration", async () => {
    async function* greet(ctx) {
      return yield ctx.callActivity("place");
    }
    const forVersion = (version) => ({
      orchestrators: { greet }, activities: { place: () => version },
      workItemFilters: {
        orchestrations: [{ name: "greet", versions: [version] }], activities: [{ name: "place", versions: [version] }],
      },
    });
    const unwanted = await hub.client.scheduleNewOrchestration("greet", null, { version: "2.0.0" });
    await hub.worker(forVersion("1.0.0"));
    await hub.worker(forVersion("3.0.0"));
    for (const version of ["1.0.0", "3.0.0"]) {
      assert.equal(output(await hub.run("greet", null, { version })), version);
    }
    assert.equal(await status(unwanted), OrchestrationStatus.PENDING);
    await hub.client.terminateOrchestration(unwanted);
  });

  test("made from what is registered", async () => {
    const foreign = await hub.client.scheduleNewOrchestration("foreign");
    await hub.worker({ orchestrators: { own: async () => "own" }, workItemFilters: "auto" });
    assert.equal(output(await hub.run("own")), "own");
    assert.equal(await status(foreign), OrchestrationStatus.PENDING);
    await hub.worker({ orchestrators: { foreign: async () => "foreign" }, workItemFilters: "auto" });
    assert.equal(output(await hub.client.waitForOrchestrationCompletion(foreign, true, 30)), "foreign");
  });
});
