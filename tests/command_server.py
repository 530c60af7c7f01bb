"""The command `mlip` as tests run it: a process of its own for each, forked from one that has imported torch.

torch, ASE and what frameworks share take five seconds of a processor to import, more than most commands themselves.
Frameworks are not imported before: some change settings of torch for the whole process.

python tests/command_server.py    reads a command per line as JSON from standard input, and writes its exit status
"""

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from threading import Lock

IMPORTED_BEFORE = ("torch._dynamo", "ase.io", "sklearn", "scipy.stats", "matplotlib.pyplot")


class CommandServer:
    """Runs commands of `mlip` in the environment that it was started in."""

    def __init__(self) -> None:
        self.environment = _environment()
        self.lock = Lock()
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.communicate)  # at the end of its input it ends

    def run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        """As subprocess.run does, with the output as text."""
        if _environment() != self.environment:  # which libraries may have read when they were imported
            command = [sys.executable, "-m", "mlip_deploy.cli.main", *words]
            return subprocess.run(command, capture_output=True, text=True)
        with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors, self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            print(json.dumps([words, os.getcwd(), output.name, errors.name]), file=self.process.stdin, flush=True)
            status = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(["mlip", *words], status, output.read(), errors.read())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _serve() -> None:
    for name in IMPORTED_BEFORE:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()  # a collection would copy all pages
    for line in sys.stdin:
        words, folder, output, errors = json.loads(line)
        process = os.fork()
        if process == 0:
            _become_the_command(words, folder, output, errors)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _become_the_command(words: list[str], folder: str, output: str, errors: str) -> None:
    os.chdir(folder)
    for number, path, flags in (0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, errors, os.O_WRONLY):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    sys.path[0] = folder
    from mlip_deploy.cli.main import main

    sys.argv = ["mlip", *words]
    sys.exit(main())


if __name__ == "__main__":
    _serve()
