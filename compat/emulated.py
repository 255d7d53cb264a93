"""The quick suite on another processor: aarch64 under qemu's user emulation, 32-bit x86 as it is.

    python -m compat.emulated arm64 DIR [ARGUMENTS OF PYTEST]
    python -m compat.emulated i386 DIR [ARGUMENTS OF PYTEST]

Debian's Python of that architecture is unpacked into DIR, with pytest, the first time; the tests then run in a root of
their own there, in namespaces of their own for users, mounts and foreign programs: nothing of the system is changed.
Needs root, Linux 6.7, apt and dpkg-deb; for aarch64 qemu-aarch64-static, too.

qemu hands membarrier on to the system, so each barrier step is taken; but it keeps the stores of a thread in the order
of the processor that it runs on. So these runs try layouts, call numbers and all ways through the engine; the checker
tries a processor that reorders stores (``tests/protocol/store_buffers.py``).
"""

from __future__ import annotations

import argparse
import ctypes
import glob
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from compat.interpreters import QUICK, ROOT, needed

PACKAGES: Final = ("python3", "python3-venv", "libpython3-stdlib", "coreutils", "dash", "procps")
EMULATORS: Final = {"arm64": "/usr/bin/qemu-aarch64-static", "i386": ""}
MAGIC: Final = (
    rb":qemu:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:FP"
)
"""How the kernel knows programs of 64-bit ARM: the beginning of the file, and which bits of it matter."""
_NEWUSER: Final = 0x10000000
_NEWNS: Final = 0x00020000
IDS: Final = b"0 0 65536"


def mirror() -> str:
    """The Debian mirror that this machine's apt uses."""
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*")]:
        if os.path.exists(path):
            for found in re.findall(r"(?m)^(?:URIs:|deb(?: +\[.*?\])?) +(\S+)", Path(path).read_text()):
                if "debian" in found and "security" not in found:
                    return str(found)
    raise SystemExit("no Debian mirror in this machine's apt sources")


def make_root(home: Path, architecture: str) -> None:
    """Unpack Python of that architecture, with what it needs, and pytest beside it."""
    if (home / ".done").exists():
        return
    apt = home / ".apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    (apt / "list").write_text(f"deb [arch={architecture}] {mirror()} {release} main\n")
    settings = {
        "Dir::Etc::sourcelist": apt / "list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    command = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*command, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, "--download-only", "install", *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    for package in glob.glob(f"{apt}/cache/archives/*.deb"):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
            unpack = ["tar", "-x", "-C", str(home), "--keep-directory-symlink", "--no-same-owner"]
            subprocess.run(unpack, stdin=files.stdout, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    version = next(home.glob("usr/bin/python3.*[0-9]")).name.removeprefix("python")
    pure = ["--platform=any", f"--python-version={version}", "--target", str(home / "opt" / "tests")]
    subprocess.run([*pip, *pure, *needed()], check=True)
    (home / ".done").touch()


def enter(home: Path, emulator: str) -> None:
    """Make that folder the root, in namespaces of its own; the emulator runs the programs there."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready, told = os.pipe()
    here, helper = os.getpid(), os.fork()
    if not helper:  # the process that sets the ids must be outside
        os.close(told)
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{here}/{name}").write_bytes(IDS)
        os._exit(0)
    if libc.unshare(_NEWUSER | _NEWNS):
        raise OSError(ctypes.get_errno(), "no namespaces of one's own can be had")
    os.close(told)
    os.waitpid(helper, 0)

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    if emulator:
        mount("-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc")
        Path("/proc/sys/fs/binfmt_misc/register").write_bytes(MAGIC % emulator.encode())
    for name in ("dev", "proc", "sys", "tmp", "work"):
        (home / name).mkdir(exist_ok=True)
    for name in ("dev", "proc", "sys"):
        mount("--rbind", f"/{name}", str(home / name))
    mount("-t", "tmpfs", "none", str(home / "tmp"))
    mount("--bind", str(ROOT), str(home / "work"))
    os.chroot(home)
    os.chdir("/work")


def main(arguments: list[str] | None = None) -> int:
    """Make the root if there is none yet, and run the tests there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("architecture", choices=EMULATORS)
    parser.add_argument("folder", type=Path, help="where its root is, or is to be")
    given, rest = parser.parse_known_args(arguments)
    home = given.folder.absolute()
    home.mkdir(parents=True, exist_ok=True)
    make_root(home, given.architecture)
    enter(home, EMULATORS[given.architecture])
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "PYTHONPATH": "/opt/tests"}
    command = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(rest or QUICK)]
    os.execvpe(command[0], command, {**environment, "PYTHONDONTWRITEBYTECODE": "1"})


if __name__ == "__main__":
    sys.exit(main())
