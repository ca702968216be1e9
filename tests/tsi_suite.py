#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The groups of tests/e2e/tsi: guests whose kernel hands the sockets of programs to the host.

    tsi_suite.py VIAL ENGINE OUT KRUNFW GROUP…

The harness, and the network that it runs in, is that of tests/network_suite.py; each group is one guest with the kernel
of the libkrunfw KRUNFW. What the guest's kernel does by itself shapes the tests: it asks its own sockets first, so that
a port of the loopback which somebody in the guest listens at is never the host's; and a datagram socket that connects
to the loopback stays in the guest, while one that only sends there reaches the host.

Trust: both sides are ours; what lies between them is what is tested.
"""

import contextlib
import json
import os
import socket
import stat
import sys

import network_suite as suite
from network_suite import FEW, HELD, NEAR, NEAR_6, Guest, expect, free_port, peer, wait_until
from network_suite import Server

KRUNFW = sys.argv[4]
LOOPBACK = "127.0.0.1", "::1"
NETWORK = NEAR, NEAR_6
# Of registries that let everybody use them (RFC 7535): public by their numbers, and here this namespace's own.
PUBLIC = "192.31.196.1", "2620:4f:8000::1"
MEMBERS = "10.66.0.1", "fd00:66::1"
KINDS = "tcp", "tcp6", "udp", "udp6"
ASSIGNED = "127.0.0.5"
REFUSED, BARRED, NO_WAY = "Connection refused", "Permission denied", "Network is unreachable"


class Place:
    """Four servers of the host at one place."""

    def __init__(self, addresses):
        self.servers = [Server([kind, addresses[kind.endswith("6")], 0]) for kind in KINDS]
        self.targets = [[kind, addresses[kind.endswith("6")], server.port]
                        for kind, server in zip(KINDS, self.servers)]
        self.connects = addresses != LOOPBACK  # a datagram socket; else it would stay in the guest

    def answers(self, group, guest, title):
        for target in self.targets:
            if target[0].startswith("tcp"):
                group.check(f"{title}: {target[0]}, streams", guest.call, "echoes", target, FEW, 1000)
            else:
                group.check(f"{title}: {target[0]}, datagrams", guest.call, "asks", target, FEW, 1200, self.connects)

    def is_out_of_reach(self, guest, reason):
        before = [server.accepted for server in self.servers]
        found = [guest.call("fails", target, 5) if target[0].startswith("tcp") else
                 guest.call("is_deaf", target, self.connects) for target in self.targets]
        expect(found, [reason, reason, True, True], "what the guest met")
        expect([server.accepted for server in self.servers], before, "what came to the servers")


def listening():
    """The ports that anybody on the host's side listens at."""
    found = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}", encoding="utf-8") as file:
            rows = [line.split() for line in file][1:]
        found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return found


def opens(expected, before):
    """Exactly these ports are new."""
    expect(listening() - before, set(expected), "ports that are new")


@contextlib.contextmanager
def guest_with(hijacks=True, ports=None, verb="boot", **tsi):
    path = f"{suite.work}/machine.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": {"inet_hijack": hijacks}} | ({"tsi": tsi} if tsi else {}) |
                  ({"port_map": ports} if ports is not None else {}), file)
    with Guest("--config", path, "--krunfw", KRUNFW, verb=verb, memory=256) as guest:
        yield guest


# ---- a port map

def mapped(group):
    """Out to everywhere, and in by a map. The guest's Unix sockets are its own."""
    loopback, network = Place(LOOPBACK), Place(NETWORK)
    tcp, tcp_6 = loopback.targets[:2]
    unix = Server(["unix", f"{suite.work}/host.sock"])
    peer.serve_in_child(["tcp", "127.0.0.1", 8999])
    check = group.check
    before = listening()
    with guest_with(ports=["8080:80", "8443:443"]) as guest:
        check("mapped: the guest has no network device", lambda: expect(
            [name for name in guest.call("interfaces") if name not in ("lo", "dummy0")], [], "interfaces"))
        loopback.answers(group, guest, "mapped: the loopback")
        network.answers(group, guest, "mapped: the network")
        sockets = suite.sockets(guest.pid)
        for target in (tcp, tcp_6, network.targets[0]):
            check(f"mapped: much, there and back, to {target[1]}", guest.call, "sends_much", target, 1 << 19)
        check("mapped: the guest knows whom it has called", lambda: expect(
            [guest.call("calls", target)[:2] for target in (tcp, tcp_6, network.targets[0])],
            [target[1:] for target in (tcp, tcp_6, network.targets[0])], "names"))

        def host_ends_first():
            wanted = guest.call("reads_first", tcp, 1000, 2000)
            expect(loopback.servers[0].wait(loopback.servers[0].checksums, 1), [wanted], "what came after")
        check("mapped: the host ends its half first", host_ends_first)
        check(f"mapped: {4 * FEW} streams at once", guest.call, "echoes_at_once", tcp, 4 * FEW, 1000)

        def client_dies():
            guest.call("hold_in_child", tcp, HELD)
            guest.call("kill_child")
            server = loopback.servers[0]
            expect(set(server.wait(server.ends, HELD + 1)[1:]) <= {"end", "reset"}, True, "how they ended")
        check("mapped: clients in the guest are killed", client_dies)

        def server_dies():
            guest.call("hold", ["tcp", "127.0.0.1", 8999], HELD)
            peer.kill_child()
            expect(set(guest.call("held_end")) <= {"end", "reset"}, True, "how they ended")
            guest.expect(REFUSED, "fails", ["tcp", "127.0.0.1", 8999])
        check("mapped: the server on the host is killed", server_dies)
        check("mapped: nobody listens at a port of the host", lambda: expect(
            [guest.call("fails", [kind, address, free_port(family=family)]) for kind, address, family in
             (("tcp", "127.0.0.1", socket.AF_INET), ("tcp", NEAR, socket.AF_INET), ("tcp6", "::1", socket.AF_INET6))],
            [REFUSED] * 3, "why"))
        check("mapped: nobody answers datagrams", lambda: expect(
            [guest.call("is_deaf", ["udp", NEAR, free_port(socket.SOCK_DGRAM)]),
             guest.call("is_deaf", ["udp", "127.0.0.1", free_port(socket.SOCK_DGRAM)], False)], [True, True], "deaf"))

        def unix_is_its_own():
            guest.expect("No such file or directory", "fails", ["unix", unix.socket.getsockname()])
            guest.call("make_folder", suite.work)
            guest.expect("No such file or directory", "fails", ["unix", unix.socket.getsockname()])
            guest.call("serve", "own", ["unix", f"{suite.work}/guest.sock"])
            guest.call("echoes", ["unix", f"{suite.work}/guest.sock"], 3, 1000)
            expect((unix.accepted, os.path.exists(f"{suite.work}/guest.sock")), (0, False), "what the host has of it")
        check("mapped: Unix sockets of the guest are its own", unix_is_its_own)
        check("mapped: nothing listens on the host before somebody does in the guest", opens, [], before - {8999})

        guest.call("serve", "80", ["tcp", "0.0.0.0", 80])
        guest.call("serve", "443", ["tcp6", "::", 443])
        guest.call("serve", "81", ["tcp", "0.0.0.0", 81])
        guest.call("serve", "8080", ["tcp", "0.0.0.0", 8080])
        check("mapped: the guest's 80 is the host's 8080", peer.echoes, ["tcp", "127.0.0.1", 8080], FEW, 1000)
        check("mapped: so it is on the network", peer.echoes, ["tcp", NEAR, 8080], FEW, 1000)
        check("mapped: the guest's 443, IPv6, is the host's 8443", peer.echoes, ["tcp6", "::1", 8443], FEW, 1000)
        check("mapped: much, there and back, to the guest", peer.sends_much, ["tcp", "127.0.0.1", 8080], 1 << 19)
        check(f"mapped: {4 * FEW} streams to the guest at once", peer.echoes_at_once, ["tcp", "127.0.0.1", 8080],
              4 * FEW, 1000)
        check("mapped: no other port of the host leads to the guest", opens, [8080, 8443], before - {8999})
        check("mapped: what the map does not name is not reached", lambda: expect(
            [peer.fails(["tcp", "127.0.0.1", port]) for port in (80, 81, 443)], [REFUSED] * 3, "why"))
        for port in (81, 8080):
            check(f"mapped: in the guest, its own {port} is reached", guest.call, "echoes", ["tcp", "127.0.0.1", port], 3,
                  1000)

        def knows_its_caller():
            with peer.connect(["tcp", "127.0.0.1", 8080], b"h") as stream:
                expect(stream.recv(1), b"h", "the answer")
                expect(list(stream.getsockname()), guest.call("known", "80")[-1][1], "the caller's name")
        check("mapped: the guest knows who has called", knows_its_caller)
        check("mapped: no socket of the host is left", wait_until,
              lambda: len(suite.sockets(guest.pid) - sockets) <= 2, "none but the two listeners")
        check("mapped: the guest ends well", guest.end)
        check("mapped: nothing listens after that", opens, [], before - {8999})


# ---- every listener, and Unix sockets

def published(group):
    """publish_all, and hijack_unix."""
    taken = Server(["tcp", "127.0.0.1", 0])
    taken_target = ["tcp", "127.0.0.1", taken.port]
    check, work = group.check, suite.work
    before = listening()
    with guest_with(publish_all=True, hijack_unix=True) as guest:
        guest.call("serve", "v4", ["tcp", "0.0.0.0", 8005])
        guest.call("serve", "v6", ["tcp6", "::1", 8006])
        check("published: each listener has its own number", opens, [8005, 8006], before)
        check("published: over IPv4", peer.echoes, ["tcp", "127.0.0.1", 8005], FEW, 1000)
        check("published: over IPv6", peer.echoes, ["tcp6", "::1", 8006], FEW, 1000)

        def loops():
            guest.call("echoes_by_loop", taken_target, 4 * FEW, 10000)
            expect(taken.accepted, 4 * FEW, "streams that came to the host")
            guest.call("serve_by_loop", "tcp", "0.0.0.0", 8008)
            peer.echoes_by_loop(["tcp", "127.0.0.1", 8008], 4 * FEW, 10000)
        check("published: event loops, both ways", loops)

        def is_taken():
            before = taken.accepted
            guest.call("serve", "taken", taken_target)
            peer.echoes(taken_target, 3, 1000)
            expect(taken.accepted - before, 3, "the host's own streams")
            guest.call("echoes", taken_target, 3, 1000)
            expect((taken.accepted - before, len(guest.call("known", "taken"))), (3, 3), "whose they were")
        check("published: a port that the host has taken stays the host's, and the guest's", is_taken)

        def listener_ends():
            for _ in range(2):
                guest.call("serve_in_child", ["tcp", "127.0.0.1", 8007])
                peer.echoes(["tcp", "127.0.0.1", 8007], 3, 1000)
                guest.call("kill_child")
                wait_until(lambda: 8007 not in listening(), "the host listens no longer")
            expect(peer.fails(["tcp", "127.0.0.1", 8007]), REFUSED, "why")
        check("published: a listener that ends is gone, and may come again", listener_ends)

        unix_sockets(group, guest)
        check("published: the guest ends well", guest.end)
        check("published: nothing of it is left", lambda: expect(
            (listening() - before, os.path.exists(f"{work}/guest.sock")), (set(), False), "ports and sockets"))


def unix_sockets(group, guest):
    check, work = group.check, suite.work
    stream, gram = Server(["unix", f"{work}/host.sock"]), Server(["unixgram", f"{work}/host-gram.sock"])
    with open(f"{work}/file", "w", encoding="utf-8") as file:
        file.write("mine")
    guest.call("make_folder", work)
    check("unix: streams of the guest", guest.call, "echoes", ["unix", f"{work}/host.sock"], FEW, 1000)
    check("unix: much, there and back", guest.call, "sends_much", ["unix", f"{work}/host.sock"], 1 << 19)
    check("unix: nobody is there", guest.expect, "No such file or directory", "fails", ["unix", f"{work}/nobody.sock"])

    def datagrams():
        wanted = [guest.call("throws", ["unixgram", f"{work}/host-gram.sock"], size, connects)
                  for size, connects in ((100, True), (2000, False))]
        expect(gram.wait(gram.checksums, 2), wanted, "what came")
    check("unix: datagrams of the guest", datagrams)

    def listens():
        guest.call("serve", "unix", ["unix", f"{work}/guest.sock"])
        expect(stat.S_ISSOCK(os.stat(f"{work}/guest.sock").st_mode), True, "a socket")
        peer.echoes(["unix", f"{work}/guest.sock"], FEW, 1000)
        peer.sends_much(["unix", f"{work}/guest.sock"], 1 << 19)
        expect(len(guest.call("known", "unix")), FEW + 1, "streams that came to the guest")
    check("unix: streams of the host", listens)

    def file_is_left_alone():
        guest.call("serve", "file", ["unix", f"{work}/file"])
        guest.call("echoes", ["unix", f"{work}/file"], 3, 1000)
        with open(f"{work}/file", encoding="utf-8") as file:
            expect(file.read(), "mine", "the file")
    check("unix: what is there already on the host stays, and the guest's socket its own", file_is_left_alone)

    def listener_ends():
        for _ in range(2):
            guest.call("serve_in_child", ["unix", f"{work}/child.sock"])
            peer.echoes(["unix", f"{work}/child.sock"], 3, 1000)
            guest.call("kill_child")
            wait_until(lambda: not os.path.exists(f"{work}/child.sock"), "the socket is gone")
            guest.call("remove", f"{work}/child.sock")
    check("unix: a listener that ends is gone, and may come again", listener_ends)

    def nameless():
        guest.call("serve", "abstract", ["unix", "\0vial-test"])
        guest.call("echoes", ["unix", "\0vial-test"], 3, 1000)
        expect(peer.fails(["unix", "\0vial-test"]), REFUSED, "the host's side")
    check("unix: names without a path are the guest's", nameless)
    expect(stream.accepted, FEW + 1, "streams that came to the host")


# ---- addresses

def assigned(group):
    """127.0.0.1 is another address of the host's; and nothing but the loopback."""
    here, elsewhere = Server(["tcp", ASSIGNED, 0]), Server(["tcp", "127.0.0.1", 0])
    datagrams, other, other_6 = Server(["udp", ASSIGNED, 0]), Server(["tcp", "127.0.0.9", 0]), Server(["tcp6", "::1", 0])
    network = Place(NETWORK)
    check = group.check
    with guest_with(assigned_ip=ASSIGNED, local_only=True, publish_all=True) as guest:
        target = ["tcp", "127.0.0.1", here.port]
        check("assigned: streams", guest.call, "echoes", target, FEW, 1000)
        check("assigned: the server sees where it is called", lambda: expect(
            {name[0] for name in here.names}, {(ASSIGNED, here.port)}, "the server's own name"))
        check("assigned: the guest sees whom it has called", lambda: expect(
            guest.call("calls", target), target[1:], "the name"))
        check("assigned: datagrams", guest.call, "asks", ["udp", "127.0.0.1", datagrams.port], FEW, 1200, False)

        def is_hidden():
            guest.expect(REFUSED, "fails", ["tcp", "127.0.0.1", elsewhere.port])
            expect(elsewhere.accepted, 0, "streams that came")
        check("assigned: the host's 127.0.0.1 is not reached", is_hidden)

        guest.call("serve", "own", ["tcp", "127.0.0.1", 8005])
        check("assigned: the guest's listener is there", peer.echoes, ["tcp", ASSIGNED, 8005], FEW, 1000)
        check("assigned: it is not on the host's 127.0.0.1", lambda: expect(
            (peer.fails(["tcp", "127.0.0.1", 8005]), peer.fails(["tcp", NEAR, 8005])), (REFUSED, REFUSED), "why"))

        def caller_is_renamed():
            with socket.socket() as stream:
                stream.bind((ASSIGNED, 0))
                stream.settimeout(suite.PATIENCE)
                stream.connect((ASSIGNED, 8005))
                name = stream.getsockname()
                stream.sendall(b"h\0\0\0\0")
                expect(stream.recv(1), b"h", "the answer")
            expect(guest.call("known", "own")[-1][1], ["127.0.0.1", name[1]], "the caller's name")
        check("assigned: a caller from that address is the guest's 127.0.0.1", caller_is_renamed)
        check("local only: the rest of the loopback is reached", lambda: (
            guest.call("echoes", ["tcp", "127.0.0.9", other.port], 3, 1000),
            guest.call("echoes", ["tcp6", "::1", other_6.port], 3, 1000)))
        check("local only: other addresses of the host are not", network.is_out_of_reach, guest, BARRED)
        check("assigned: the guest ends well", guest.end)


def scopes(group):
    """Three guests, of which each may reach less."""
    places = {"loopback": Place(LOOPBACK), "network": Place(NETWORK), "public": Place(PUBLIC), "group": Place(MEMBERS)}
    options = {"public": {"scope": "public"}, "group": {"scope": "group", "group": "10.66.0.0/16"},
               "none": {"scope": "none", "publish_all": True}}
    ports = {"public": [], "group": None, "none": None}
    for scope, tsi in options.items():
        before = listening()
        with guest_with(ports=ports[scope], **tsi) as guest:
            for name, place in places.items():
                if name != scope:
                    group.check(f"scope {scope}: {name} is out of reach", place.is_out_of_reach, guest, BARRED)
                elif scope == "public":
                    place.answers(group, guest, "scope public")
                else:  # of IPv4 only
                    group.check("scope group: the group is reached", lambda place=place, guest=guest: (
                        guest.call("echoes", place.targets[0], FEW, 1000), guest.call("asks", place.targets[2], FEW, 1200)))
                    group.check("scope group: IPv6 is not in it", guest.expect, BARRED, "fails", place.targets[1])
            guest.call("serve", "own", ["tcp", "0.0.0.0", 8005])
            text = {"public": "an empty map publishes nothing", "group": "without a map nothing is published",
                    "none": "not even publish_all publishes anything"}[scope]
            group.check(f"scope {scope}: {text}", opens, [], before)
            group.check(f"scope {scope}: in the guest, its own port is reached", guest.call, "echoes",
                        ["tcp", "127.0.0.1", 8005], 3, 1000)
            group.check(f"scope {scope}: the guest ends well", guest.end)


def off(group):
    """The same kernel without the hijack."""
    places = {LOOPBACK: REFUSED, NETWORK: NO_WAY, PUBLIC: NO_WAY}
    unix = Server(["unix", f"{suite.work}/host.sock"])
    before = listening()
    with guest_with(hijacks=False) as guest:
        for addresses, reason in places.items():
            group.check(f"off: {addresses[0]} is not reached", Place(addresses).is_out_of_reach, guest, reason)
        before |= listening()
        group.check("off: nor is a Unix socket", guest.expect, "No such file or directory", "fails",
                    ["unix", unix.socket.getsockname()])
        guest.call("serve", "own", ["tcp", "0.0.0.0", 8005])
        group.check("off: nothing is published", opens, [], before)
        group.check("off: the guest ends well", guest.end)


def sandbox(group):
    """Behind the walls of vial run."""
    places = Place(LOOPBACK), Place(NETWORK)
    before = listening()
    with guest_with(ports=["8080:80"], verb="run") as guest:
        for place in places:
            place.answers(group, guest, f"run: {place.targets[0][1]}")
        guest.call("serve", "80", ["tcp", "0.0.0.0", 80])
        guest.call("serve", "81", ["tcp", "0.0.0.0", 81])
        group.check("run: the guest's 80 is the host's 8080", peer.echoes, ["tcp", "127.0.0.1", 8080], FEW, 1000)
        group.check("run: no other port of the host leads to the guest", opens, [8080], before)
        group.check("run: the guest ends well", guest.end)


def main():
    groups = {"mapped": mapped, "published": published, "assigned": assigned, "scopes": scopes, "off": off,
              "sandbox": sandbox}
    suite.main(groups, sys.argv[5:], [f"{PUBLIC[0]}/32", f"{PUBLIC[1]}/128", f"{MEMBERS[0]}/32", f"{MEMBERS[1]}/128"])


if __name__ == "__main__":
    main()
