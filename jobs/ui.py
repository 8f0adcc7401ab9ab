"""MLflow in a browser, over what the jobs left in a storage folder. Only this machine reaches it; Ctrl-C ends it.

It prints the page of each experiment's runs, the newest first: open that.

    python jobs/ui.py --storage runs --port 5000

Exit code: 2 bad arguments, or nothing to serve.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError, one_line, printable
from infra.store import Store
from jobs import command_line
from jobs.invocation import start_of

SHOWN = 20  # experiments
LAST_PORT = 65535


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("ui.py", __doc__)
    parser.add_argument("--storage", type=command_line.path, help="what the jobs filled (default: runs)")
    parser.add_argument("--port", type=int, default=5000, help="of 127.0.0.1")
    return parser.parse(argv)


def check_port(port: int) -> None:
    """Raises UsageError for a port that the server could not listen on."""
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or f"from 1 to {LAST_PORT}"
        raise UsageError(f"--port {port}: cannot be listened on ({cause}); give another") from error


def server_command(storage: str | None, port: int) -> list[str]:
    """The command line of the server. Raises UsageError for a folder without a store of MLflow's."""
    from infra.tracking.moved import follow_storage  # imports MLflow, which --help must not wait for
    from infra.tracking.runs import ERRORS, sqlite_lock
    from infra.tracking.uri import default_uri

    folder = Store.open(storage or None, "--storage").tracking_folder
    file, uri = folder / "mlflow.db", default_uri(folder)
    if not file.is_file():
        train = " ".join(start_of("train_corpus"))
        raise UsageError(f"{printable(file)}: is not there; run {train} first, or give another --storage")
    try:
        with sqlite_lock(uri):
            follow_storage(uri, folder)
    except ERRORS as error:
        raise UsageError(
            f"{printable(file)}: cannot be used ({one_line(error)}); see to it, or give another --storage"
        ) from error
    options = ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *options]


def pages(storage: str | None, port: int) -> list[str]:
    """The addresses of the experiments' runs, the newest first; of MLflow itself where there is none."""
    from infra.tracking.parent import runs_page
    from infra.tracking.runs import ERRORS, experiments, sqlite_lock
    from infra.tracking.uri import default_uri

    uri = default_uri(Store.open(storage or None, "--storage").tracking_folder)
    try:
        with sqlite_lock(uri):
            found = experiments(uri)[:SHOWN]
    except ERRORS as error:
        raise UsageError(f"{printable(uri)}: cannot be used ({one_line(error)}); see to it, or give another") from error
    server = f"http://127.0.0.1:{port}"
    return [f"{server}/{runs_page(number)}  {printable(name)}" for number, name in found] or [server]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: this process becomes the server. Returns the exit code of what cannot be served."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        check_port(args.port)
        command = server_command(args.storage, args.port)
        for line in pages(args.storage, args.port):
            print(line, flush=True)
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # which starts eight processes more
        os.execv(command[0], command)

    return command_line.exit_code(run, console, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
