"""Sharing results over SSH, with an OpenSSH server on loopback."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.requirements import needs
from tests.support.tiny_project import Project

# On Debian, only root's PATH includes its folder.
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
# When started by root, sshd requires this empty folder, normally created by the service.
PRIVILEGE_SEPARATION = Path("/run/sshd")
DEADLINE_S = 120

needs_sshd = needs(SSHD, "found no OpenSSH server (sshd): apt-get install openssh-server")


class Server(NamedTuple):
    """An SSH server that accepts one key."""

    port: int
    key: Path


@contextmanager
def ssh_server(folder: Path) -> Iterator[Server]:
    """Run sshd on a free port of 127.0.0.1 as the current user."""
    assert SSHD is not None
    for name in ("host", "client"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    with ExitStack() as stack:
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists():
            PRIVILEGE_SEPARATION.mkdir(mode=0o755)
            stack.callback(PRIVILEGE_SEPARATION.rmdir)
        log = stack.enter_context((folder / "log").open("w"))
        # -D keeps the server in the foreground, so that the terminated process is the server.
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Server(port, folder / "client")


@needs_sshd
def test_what_was_pushed_over_ssh_is_pulled_elsewhere_and_leaves_nothing_to_do(
    tmp_path: Path,
) -> None:
    places = {name: tmp_path / name for name in ("here", "there", "remote", "server")}
    for name in ("here", "server"):
        places[name].mkdir()
    here = Project.create(places["here"])
    here.run("git", "clone", "--quiet", ".", str(places["there"]))
    there = Project(places["there"])
    with ssh_server(places["server"]) as server:
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{server.port}{places['remote']}"
        for project in (here, there):
            project.run("dvc", "remote", "add", "--local", "--default", "shared", url)
            keyfile = ("shared", "keyfile", str(server.key))
            project.run("dvc", "remote", "modify", "--local", *keyfile)
        here.run("dvc", "push")
        there.run("dvc", "pull")
    assert "Data and pipelines are up to date." in there.run("dvc", "repro")
    assert there.run("git", "status", "--porcelain") == ""
    for name in ("data/predictions.csv", "data/splits/test.h5", "metrics/evaluate/metrics.json"):
        assert (there.path / name).read_bytes() == (here.path / name).read_bytes()
    # The files were transferred over the network.
    stored = [path for path in places["remote"].rglob("*") if path.is_file()]
    assert len(stored) == 2
    assert "Accepted publickey" in (places["server"] / "log").read_text()
