"""A stand-in for nvidia-cuda-mps-control, which runs only with NVIDIA's driver: its commands, and a record of them.

`install` puts it into a folder for PATH. With -f it is the daemon: it listens on CUDA_MPS_PIPE_DIRECTORY/control.
Without, it passes the commands on its standard input to the daemon and prints the answers. Its one server, 4242, has as
clients whoever of derma's processes has this CUDA_MPS_PIPE_DIRECTORY in the environment.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

SERVER = "4242"
RECORD = "MPS_RECORD"  # environment: the file that gets a line for each event


def install(folder: Path) -> None:
    """Write the program `folder`/nvidia-cuda-mps-control."""
    program = folder / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)


def clients(pipe_dir: str) -> list[int]:
    """Return the living processes of the daemon's environment, beside the daemon and its callers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:  # gone, or not ours to look at
            continue
        if f"CUDA_MPS_PIPE_DIRECTORY={pipe_dir}".encode() in environment and b"derma_" in command:
            found.append(int(process.name))
    return found


def note(line: str) -> None:
    with Path(os.environ[RECORD]).open("a") as record:
        record.write(line + "\n")


def daemon(pipe_dir: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{pipe_dir}/control")
    listening.listen()
    note(f"start {os.environ['CUDA_DEVICE_ORDER']}")
    while True:
        caller, _ = listening.accept()
        command = caller.recv(100).decode().split()
        answer = ""
        if command == ["get_server_list"]:
            answer = SERVER
        elif command == ["get_client_list", SERVER]:
            answer = "\n".join(map(str, clients(pipe_dir)))
        elif command[0] == "terminate_client":
            note(f"terminate {command[2]} alive {Path('/proc', command[2]).exists()}")
        elif command == ["quit"]:
            note(f"quit with {len(clients(pipe_dir))} clients")
            return
        caller.sendall(answer.encode())
        caller.close()


def pass_on(pipe_dir: str) -> int:
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(f"{pipe_dir}/control")
        except OSError:
            print("Cannot find MPS control daemon process", file=sys.stderr)
            return 1
        line.sendall(sys.stdin.read().encode())
        print(line.recv(10_000).decode())
    return 0


if __name__ == "__main__":
    here = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    sys.exit(daemon(here) if sys.argv[1:] == ["-f"] else pass_on(here))
