#!/usr/bin/env python3
"""A wire that delays and loses packets, for `speed --private-in`.

Makes two network namespaces, `sotto-near` and `sotto-far`, joined by the wire
(10.8.0.1 and 10.8.0.2) and by a good one (10.9.0.1 and 10.9.0.2), says `up`,
and keeps them until it is ended. It needs root. Both ends' congestion control
is what `--congestion` says.

    wire.py --loss 0.05 --delay-ms 50 --mbit 100 --queue-ms 200 &
    ip netns exec sotto-near speed --private-in sotto-far \\
        --public-at 10.8.0.1 --server-at 10.9.0.1 --sotto … --rathole …
"""

import argparse
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

NEAR, FAR = "sotto-near", "sotto-far"
# From linux/if_tun.h: a device of packets, without a header before each.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_MAX = 65_536


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def inside(namespace, *words):
    subprocess.run(["ip", "netns", "exec", namespace, *words], check=True)


def wire_end(namespace, name, address):
    """One end of the wire: what is written to it arrives in the namespace."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(device, TUNSETIFF, request)
    ip("link", "set", name, "netns", namespace)
    ip("-n", namespace, "addr", "add", address, "dev", name)
    ip("-n", namespace, "link", "set", name, "txqueuelen", "1000", "up")
    return device


def set_up(congestion):
    for namespace in (NEAR, FAR):
        ip("netns", "add", namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        setting = f"net.ipv4.tcp_congestion_control={congestion}"
        inside(namespace, "sysctl", "-qw", setting)
    good = ("sotto-good-near", "sotto-good-far")
    ip("link", "add", good[0], "netns", NEAR, "type", "veth",
       "peer", "name", good[1], "netns", FAR)
    for namespace, name, address in (
        (NEAR, good[0], "10.9.0.1/24"),
        (FAR, good[1], "10.9.0.2/24"),
    ):
        ip("-n", namespace, "addr", "add", address, "dev", name)
        ip("-n", namespace, "link", "set", name, "up")
    near = wire_end(NEAR, "sotto-wire-near", "10.8.0.1/24")
    far = wire_end(FAR, "sotto-wire-far", "10.8.0.2/24")
    return near, far


def carry(near, far, loss, delay, rate, queue):
    """Passes packets on for ever, each way on its own."""
    other, free = {near: far, far: near}, {near: 0.0, far: 0.0}
    on_the_way, number = [], 0
    while True:
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, _, to, packet = heapq.heappop(on_the_way)
            try:
                os.write(to, packet)
            except OSError:
                pass  # Lost: the namespace has no room for it.
        wait = max(0, on_the_way[0][0] - now) if on_the_way else None
        for device in select.select([near, far], [], [], wait)[0]:
            try:
                packet = os.read(device, PACKET_MAX)
            except BlockingIOError:
                continue
            now = time.monotonic()
            starts = max(now, free[device])
            if random.random() < loss or starts - now > queue:
                continue
            free[device] = starts + len(packet) / rate
            number += 1
            arrival = (free[device] + delay, number, other[device], packet)
            heapq.heappush(on_the_way, arrival)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", type=float, default=0.05, help="share of packets, each way")
    parser.add_argument("--delay-ms", type=float, default=50, help="each way")
    parser.add_argument("--mbit", type=float, default=100, help="a second, each way")
    parser.add_argument("--queue-ms", type=float, default=200, help="longer ones lose packets")
    parser.add_argument("--congestion", default="bbr")
    said = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        near, far = set_up(said.congestion)
        print("up", flush=True)
        carry(near, far, said.loss, said.delay_ms / 1_000,
              said.mbit * 1e6 / 8, said.queue_ms / 1_000)
    except KeyboardInterrupt:
        pass
    finally:
        for namespace in (NEAR, FAR):
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


if __name__ == "__main__":
    main()
