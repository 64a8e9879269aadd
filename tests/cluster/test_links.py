"""What strangers send changes nothing, and a real network serves as well as loopback."""
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import LINUX, free_port, wait_for

pytestmark = pytest.mark.skipif(not LINUX, reason="finds a worker's ports in /proc, and uses network namespaces")
PROMPT, N_TOKENS = "The sheep walk in a line", 200
GREEDY = ["--raw", "-p", PROMPT, "-n", N_TOKENS, "--temp", 0, "--ignore-eos", "--json"]


# -- a stranger that speaks ZMTP (the protocol of ZeroMQ's tcp links), to get past the door -------------------------------------------


def zmtp_frame(body, more=False, command=False):
    flags = (1 if more else 0) | (4 if command else 0)
    if len(body) > 255:
        return struct.pack(">BQ", flags | 2, len(body)) + body
    return struct.pack(">BB", flags, len(body)) + body


def zmtp_connect(port, socket_type):
    """A connection after the NULL handshake, as a socket of this type."""
    s = socket.create_connection(("127.0.0.1", port), 2)
    s.settimeout(2)
    s.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
    name = b"Socket-Type"
    s.sendall(zmtp_frame(b"\x05READY" + bytes([len(name)]) + name + struct.pack(">I", len(socket_type)) + socket_type, command=True))
    return s


def garbage(choose, port, socket_type):
    """One stranger's visit. What it sends may be refused half-way: that is the point."""
    try:
        kind = choose.randrange(8)
        if kind == 0:
            s = socket.create_connection(("127.0.0.1", port), 2)
            s.sendall(choose.randbytes(choose.randrange(1, 5000)))
        elif kind == 1:
            s = socket.create_connection(("127.0.0.1", port), 2)
            s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        elif kind == 2:  # a greeting that breaks off
            s = socket.create_connection(("127.0.0.1", port), 2)
            s.sendall(b"\xff" + bytes(8) + b"\x7f\x03")
        elif kind == 3:  # a frame that promises 2^62 bytes
            s = zmtp_connect(port, socket_type)
            s.sendall(struct.pack(">BQ", 2, 1 << 62) + b"x" * 1000)
        elif kind == 4:  # frames without end in one message
            s = zmtp_connect(port, socket_type)
            for _ in range(50):
                s.sendall(zmtp_frame(choose.randbytes(20), more=True))
        elif kind == 5:  # random bytes as one frame
            s = zmtp_connect(port, socket_type)
            for _ in range(20):
                s.sendall(zmtp_frame(choose.randbytes(choose.randrange(300))))
        elif kind == 6:  # random bytes as header and payload
            s = zmtp_connect(port, socket_type)
            for _ in range(20):
                s.sendall(zmtp_frame(choose.randbytes(choose.randrange(100)), more=True) + zmtp_frame(choose.randbytes(2304)))
        else:  # nearly valid: field numbers and wire types of woolly.proto with random values
            s = zmtp_connect(port, socket_type)
            for _ in range(20):
                body = b"".join(bytes([choose.randrange(1, 12) << 3 | choose.choice([0, 2])]) + bytes([choose.randrange(128)])
                                for _ in range(choose.randrange(1, 12)))
                s.sendall(zmtp_frame(body, more=True) + zmtp_frame(b"") if choose.random() < 0.5 else zmtp_frame(body))
        time.sleep(0.002)
        s.close()
    except OSError:
        pass


def listening_ports(pid):
    """Tcp ports that this process listens on."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for row in open(f"/proc/{pid}/net/{table}", encoding="utf-8").readlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.short)])
def test_strangers_at_every_port_do_not_change_the_answer(woolly, own_models, seed):
    model = own_models / "llama-q6_k.gguf"
    expected = woolly.json("run", "-m", model, *GREEDY[:-1])["tokens"]
    port, choose = free_port(), random.Random(seed)
    workers = [woolly.worker(port, f"w{i}") for i in range(2)]
    run = woolly.start("run", "-m", model, *GREEDY, "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    visits = 0
    while run.popen.poll() is None or visits < 60:
        garbage(choose, port, b"DEALER")
        for worker in workers:
            for data_port in listening_ports(worker.pid):
                garbage(choose, data_port, b"PUSH")
        visits += 1
    result = run.wait(30)
    assert result.code == 0, repr(result)
    assert result.json["tokens"] == expected and visits >= 10
    assert all(worker.popen.poll() is None for worker in workers), [worker.result() for worker in workers]
    again = woolly.json("run", "-m", model, *GREEDY[:-1], "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    assert again["tokens"] == expected


@pytest.mark.short
def test_strangers_at_the_door_do_not_count_as_workers(woolly, tiny):
    port, choose = free_port(), random.Random(9)
    run = woolly.start("run", "-m", tiny, *GREEDY, "--listen", f"127.0.0.1:{port}", "--min-workers", 1, "--join-timeout", 2)
    while run.popen.poll() is None:
        garbage(choose, port, b"DEALER")
    result = run.wait(5)
    lines = result.err.splitlines()
    assert result.code == 4 and lines[-1].startswith("woolly run: "), repr(result)
    assert len(lines) < 50 and all(line.startswith("woolly: dropped") for line in lines[:-1]), repr(result)


@pytest.mark.short
def test_peers_of_old_protocols_cannot_end_a_coordinator_that_is_leaving(woolly, tiny):
    """libzmq 4.3.4 aborts the process when a ZMTP 1 or 2 peer names itself to a socket that is closing; so such peers must not get that far."""
    port, over = free_port(), threading.Event()

    def visit():
        greetings = [b"\x01\x00" + b"\x05\x00abcd" * 3, b"\xff" + bytes(7) + b"\x01\x7f" + b"\x01\x05" + b"\x00\x04abcd"]
        while not over.is_set():
            for greeting in [*greetings, random.randbytes(200)]:
                try:
                    with socket.create_connection(("127.0.0.1", port), 1) as s:
                        s.sendall(greeting)
                except OSError:
                    pass

    woolly.worker(port, "w")
    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    try:
        for _ in range(30):
            result = woolly("run", "-m", tiny, *GREEDY[:3], "-n", 2, "--listen", f"127.0.0.1:{port}", "--join-timeout", 10)
            assert result.code == 0, repr(result)
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()


# -- two hosts, as network namespaces joined by a cable -------------------------------------------------------------------------------


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def two_hosts(request):
    """("ip netns exec A", "ip netns exec B"): two namespaces with 192.0.2.1 and 192.0.2.2 on a cable, and its end in A."""
    tag = f"{os.getpid() % 100000:x}"
    hosts, ends = [f"woolly-{tag}-{h}" for h in "ab"], [f"w{tag}{h}" for h in "ab"]
    request.addfinalizer(lambda: [ip("netns", "delete", host) for host in hosts])
    steps = [["netns", "add", hosts[0]], ["netns", "add", hosts[1]],
             ["link", "add", ends[0], "netns", hosts[0], "type", "veth", "peer", "name", ends[1], "netns", hosts[1]]]
    for i in range(2):
        steps += [["-n", hosts[i], "address", "add", f"192.0.2.{i + 1}/24", "dev", ends[i]], ["-n", hosts[i], "link", "set", ends[i], "up"],
                  ["-n", hosts[i], "link", "set", "lo", "up"]]
    for step in steps:
        try:
            result = ip(*step)
        except OSError:
            pytest.skip("ip (iproute2) is not installed")
        if result.returncode != 0:
            pytest.skip(f"no network namespaces here: ip {' '.join(step)}: {result.stderr.strip()}")
    return ["ip", "netns", "exec", hosts[0]], ["ip", "netns", "exec", hosts[1]], (hosts[0], ends[0])


def start_on_two_hosts(woolly, two_hosts, model, *arguments):
    here, there, _ = two_hosts
    workers = [woolly.start("--join", "192.0.2.1:7000", "--insecure", "--name", name, program="woolly-worker", prefix=prefix)
               for name, prefix in (("near", here), ("far", there))]
    return workers, woolly.start("run", "-m", model, *arguments, "--listen", "192.0.2.1:7000", "--min-workers", 2, "--insecure",
                                 "--use-all", prefix=here)


def test_two_hosts_answer_as_one_and_a_plain_link_is_warned_about(woolly, two_hosts, smollm2):
    expected = woolly.json("run", "-m", smollm2, *GREEDY[:-1])["tokens"]
    _, run = start_on_two_hosts(woolly, two_hosts, smollm2, *GREEDY)
    result = run.wait(60)
    assert result.code == 0, repr(result)
    assert result.json["tokens"] == expected
    assert {stage["name"] for stage in result.json["stages"]} == {"near", "far"}
    assert "encrypt" in result.err.lower() or "insecure" in result.err.lower(), repr(result)


def test_a_host_that_drops_off_the_network_is_an_error_within_4_s(woolly, two_hosts, smollm2):
    _, run = start_on_two_hosts(woolly, two_hosts, smollm2, "--raw", "-p", PROMPT, "-n", 4000, "--temp", 0, "--ignore-eos")
    run.wait_for_output(20)
    host, end = two_hosts[2]
    assert ip("-n", host, "link", "set", end, "down").returncode == 0
    result = run.wait(4)
    assert result.code == 4 and "far" in result.err, repr(result)


@pytest.mark.short
def test_a_worker_ends_within_2_s_of_being_told_while_strangers_visit(woolly):
    worker = woolly.worker(free_port(), "w")
    port = wait_for(lambda: listening_ports(worker.pid) or worker.popen.poll(), 5)
    if isinstance(port, list):
        choose = random.Random(2)
        for _ in range(30):
            garbage(choose, port[0], b"PUSH")
    worker.signal(signal.SIGTERM)
    assert worker.wait(2).code == 0
