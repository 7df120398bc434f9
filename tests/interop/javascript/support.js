"use strict";
// The server as a process that tests can kill and start again, and workers that stop with their test.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");
const { randomUUID } = require("node:crypto");
const { after, afterEach, before } = require("node:test");

const { NoOpLogger, TaskHubGrpcClient, TaskHubGrpcWorker } = require("@microsoft/durabletask-js");

const logger = new NoOpLogger();

/** A server on a data folder. It keeps its port when it is started again, so that clients find it. */
class Server {
  constructor() {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), "steadfast-interop-"));
    this.port = 0;
  }

  get address() {
    return `127.0.0.1:${this.port}`;
  }

  async start() {
    const log = fs.createWriteStream(path.join(this.folder, "server.log"), { flags: "a" });
    this.process = spawn(
      process.env.STEADFAST_BINARY,
      ["serve", "--data-dir", path.join(this.folder, "data"), "--listen", this.address],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    this.ended = new Promise((resolve) => this.process.once("exit", resolve));
    let said = "";
    const port = await new Promise((resolve, reject) => {
      for (const stream of [this.process.stdout, this.process.stderr]) {
        // Everything is read to the end: a full pipe would stop the server.
        readline.createInterface({ input: stream }).on("line", (line) => {
          log.write(`${line}\n`);
          said += `${line}\n`;
          const found = /127\.0\.0\.1:(\d+)/.exec(line);
          if (found) resolve(Number(found[1]));
        });
      }
      this.ended.then(() => reject(new Error(`the server ended:\n${said}`)));
    });
    this.port = port;
  }

  /** SIGKILL: nothing is flushed, nobody is told. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async end() {
    await this.kill();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Workers and clients on their way to a stop: both take a second, which nobody waits for before the end of the file. */
const stopping = [];

/** A server for a file of tests, a client of it, and workers that stop with their test. */
function useServer() {
  const server = new Server();
  const context = { server, client: undefined, workers: [] };

  before(async () => {
    await server.start();
    context.client = new TaskHubGrpcClient({ hostAddress: server.address, logger });
  });

  afterEach(() => {
    for (const worker of context.workers.splice(0)) stopping.push(worker.stop());
  });

  after(async () => {
    await Promise.all([...stopping.splice(0), context.client.stop()]);
    await server.end();
  });

  /** Starts a worker with this code. */
  context.worker = async ({ orchestrators = {}, activities = {}, entities = {}, ...options }) => {
    const worker = new TaskHubGrpcWorker({ hostAddress: server.address, logger, ...options });
    for (const [name, code] of Object.entries(orchestrators)) worker.addNamedOrchestrator(name, code);
    for (const [name, code] of Object.entries(activities)) worker.addNamedActivity(name, code);
    for (const [name, code] of Object.entries(entities)) worker.addNamedEntity(name, code);
    await worker.start();
    context.workers.push(worker);
    return worker;
  };

  /** Starts an orchestration and waits for its end. */
  context.run = async (name, input, options) => {
    const id = await context.client.scheduleNewOrchestration(name, input, options);
    return await context.client.waitForOrchestrationCompletion(id, true, 60);
  };

  return context;
}

const unique = (name = "id") => `${name}-${randomUUID().slice(0, 13)}`;

/** Asks again until it is so, for what the protocol has no wait for. Gives what the condition gave. */
async function until(condition, seconds = 30) {
  const limit = Date.now() + seconds * 1000;
  for (;;) {
    const got = await condition();
    if (got) return got;
    assert.ok(Date.now() < limit, "it never came to be so");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const output = (state) => JSON.parse(state.serializedOutput);

/** Something that one side waits for and the other lets happen. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

module.exports = { Server, gate, logger, output, unique, until, useServer };
