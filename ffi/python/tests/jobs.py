"""Jobs of real processes: each rank runs a function of programs.py and says what it returns."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: For a whole job, which takes a second or two on a machine that does nothing else.
DEADLINE = 90


@dataclass
class Rank:
    """What became of a rank."""

    status: int
    answer: object
    said: str


class Job:
    """Ranks that run. Ended with the block, whatever happens in it."""

    def __init__(self, ranks, function, *arguments, **environment):
        self.place = tempfile.TemporaryDirectory()
        self.files = [Path(self.place.name) / str(rank) for rank in range(ranks)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RCCL_", "NCCL_"))}
        meeting = {"RCCL_COMM_ID": f"file://{self.place.name}/meeting", "RCCL_SIZE": str(ranks)}
        self.processes = []
        for rank, file in enumerate(self.files):
            command = [sys.executable, str(HERE / "programs.py"), str(file), function, json.dumps(arguments)]
            variables = inherited | meeting | {"RCCL_RANK": str(rank)} | environment
            said = open(f"{file}.said", "w+")
            self.processes.append((subprocess.Popen(command, env=variables, stdout=said, stderr=said), said))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, said in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            said.close()
        self.place.cleanup()

    def pid(self, rank):
        return self.processes[rank][0].pid

    def wait_for(self, rank, name):
        """Until the rank has said that it is there (programs.reached)."""
        until = time.monotonic() + DEADLINE
        while not Path(f"{self.files[rank]}.{name}").exists():
            assert time.monotonic() < until, f"rank {rank} does not reach {name}: {self.said(rank)}"
            assert self.processes[rank][0].poll() is None, self.said(rank)
            time.sleep(0.01)

    def said(self, rank):
        return Path(f"{self.files[rank]}.said").read_text()

    def ends(self):
        """What became of all ranks."""
        until = time.monotonic() + DEADLINE
        ranks = []
        for rank, (process, _) in enumerate(self.processes):
            try:
                status = process.wait(max(until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"rank {rank} does not end: {self.said(rank)}") from None
            file = self.files[rank]
            answer = json.loads(file.read_text()) if file.exists() else None
            ranks.append(Rank(status, answer, self.said(rank)))
        return ranks


def run(ranks, function, *arguments, **environment):
    """What the ranks of a job answer, all of which end well."""
    with Job(ranks, function, *arguments, **environment) as job:
        ended = job.ends()
    failed = [f"rank {rank} of {ranks}: {end.said}" for rank, end in enumerate(ended) if end.status != 0]
    assert not failed, "\n".join(failed)
    return [end.answer for end in ended]
