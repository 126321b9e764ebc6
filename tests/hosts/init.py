"""The first process of a host: names it, starts its loopback, and waits for the orphans of all other processes."""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # netdevice(7)


def main(name: str) -> None:
    if ctypes.CDLL(None, use_errno=True).sethostname(name.encode(), len(name)):
        raise OSError(ctypes.get_errno(), "sethostname")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    print("up", flush=True)
    while True:
        signal.sigwait([signal.SIGCHLD])
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


if __name__ == "__main__":
    main(sys.argv[1])
