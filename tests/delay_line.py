#!/usr/bin/env python3
"""A cable that takes its time: carries Ethernet frames between two tap interfaces, each way after a delay.

    delay_line.py INTERFACE INTERFACE SECONDS

Makes both interfaces (root, /dev/net/tun), prints "ready" and carries until it is killed, which removes them. One end may be moved to another network
namespace. What netem does where the kernel has it; frames keep their order, and none is lost but what an interface's own queue drops.
"""
import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME_BYTES, A_TURN = 65536, 64


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def read_frames(tap, queue, due):
    for _ in range(A_TURN):
        try:
            queue.append((due, os.read(tap, FRAME_BYTES)))
        except OSError:  # no more of them, or the interface is down
            return


def write_frames(tap, queue, now):
    while queue and queue[0][0] <= now:
        try:
            os.write(tap, queue.popleft()[1])
        except OSError:  # the interface is down
            pass


def main():
    ends, delay_s = [open_tap(name) for name in sys.argv[1:3]], float(sys.argv[3])
    queues = [collections.deque(), collections.deque()]  # to each end
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        for end, queue in zip(ends, queues):
            write_frames(end, queue, now)
        waits = [queue[0][0] - now for queue in queues if queue]
        readable = select.select(ends, [], [], max(0, min(waits)) if waits else None)[0]
        due = time.monotonic() + delay_s
        for i, end in enumerate(ends):
            if end in readable:
                read_frames(end, queues[1 - i], due)


if __name__ == "__main__":
    main()
