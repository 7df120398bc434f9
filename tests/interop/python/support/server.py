"""`steadfast serve` as a process that tests can kill and start again."""

import os
import re
import subprocess
import threading
from pathlib import Path

import grpc
from google.protobuf import empty_pb2

import durabletask.internal.orchestrator_service_pb2_grpc as stubs

# Where the program under test is; the test of cargo that runs the suites sets it.
BINARY = "STEADFAST_BINARY"

# Far more than a start takes; a server that hangs fails the tests instead of blocking them.
START_SECONDS = 60


class Server:
    """A server on a data folder. It keeps its port when it is started again, so that clients find it."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.arguments = arguments
        self.port = 0
        self._process: subprocess.Popen | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert self._process is None, "it runs already"
        command = [
            os.environ[BINARY], "serve",
            "--data-dir", str(self.folder / "data"),
            "--listen", f"127.0.0.1:{self.port}",
            *self.arguments,
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        announced = threading.Event()
        said: list[str] = []
        reader = threading.Thread(target=self._read, args=(self._process, announced, said), daemon=True)
        reader.start()
        if not announced.wait(START_SECONDS) or self.port == 0:
            self.kill()
            raise AssertionError("the server does not say where it listens:\n" + "".join(said))
        with self.channel() as channel:
            stubs.TaskHubSidecarServiceStub(channel).Hello(
                empty_pb2.Empty(), timeout=START_SECONDS, wait_for_ready=True)

    def _read(self, process: subprocess.Popen, announced: threading.Event, said: list[str]) -> None:
        # Everything is read to the end: a full pipe would stop the server.
        with open(self.folder / "server.log", "a") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if not announced.is_set():
                    said.append(line)
                    found = re.search(r"127\.0\.0\.1:(\d+)", line)
                    if found:
                        self.port = int(found.group(1))
                        announced.set()
        announced.set()

    def channel(self) -> grpc.Channel:
        """A connection of its own: channels to one address share theirs otherwise, with its back-off."""
        return grpc.insecure_channel(self.address, options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ])

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        process, self._process = self._process, None
        process.kill()
        process.wait()

    def stop(self) -> int:
        """SIGTERM, and what it ends with."""
        process, self._process = self._process, None
        process.terminate()
        return process.wait(START_SECONDS)

    def end(self) -> None:
        if self._process is not None:
            self.kill()

    def log(self) -> str:
        return (self.folder / "server.log").read_text()
