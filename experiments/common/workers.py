"""Processes that hold one model each and are measured in turn, so that a slow moment of the machine affects all."""

import json
import subprocess
from typing import IO, Any, cast


class Worker:
    """A process that reads one request from each line of its standard input, and answers in one line of JSON.

    Args:
        name: of what it measures.
        command: to start it; its first answer, `about`, comes without a request.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.requests, self.answers = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """Return its next answer, or an error if it has ended."""
        line = self.answers.readline()
        return json.loads(line) if line else {"error": "the process ended, perhaps for lack of memory"}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return one measurement."""
        if self.process.poll() is not None:
            return {"error": "the process has ended"}
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        return self.read()

    def close(self) -> None:
        """End the process."""
        self.requests.close()
        self.process.terminate()
        self.process.wait()


def take_turns(
    workers: list[Worker], request: dict[str, Any], rounds: int, found: dict[str, list[dict[str, Any]]], title: str
) -> None:
    """Send a request to all workers in turn, round by round; append the answers to `found`, by name.

    The first round warms up and is left out. A worker that has failed is not asked again.
    """
    from tqdm import tqdm

    for number in tqdm(range(1 + rounds), title, unit="round"):
        for worker in workers:
            if any("error" in one for one in found[worker.name]):
                continue
            answer = worker.ask(request)
            if number > 0 or "error" in answer:
                found[worker.name].append(answer)
