"""nfstream: meters are processes that put the flows that they see in a capture into one queue."""

import multiprocessing
import struct
import tempfile
from pathlib import Path

from nfstream import NFStreamer


def packet(source, port, size):
    payload = bytes(size)
    udp = struct.pack("!4H", port, 53, 8 + size, 0) + payload
    addresses = bytes([10, 0, 0, source, 8, 8, 8, 8])
    ip = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, addresses)
    return bytes(12) + b"\x08\x00" + ip + udp


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "some.pcap")
        data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        for number in range(600):
            frame = packet(1 + number % 20, 4000 + number % 3, 10 + number % 50)
            data += struct.pack("<4I", 1000 + number // 10, number, len(frame), len(frame)) + frame
        path.write_bytes(data)
        flows = [
            (flow.src_ip, flow.src_port, flow.bidirectional_packets, flow.bidirectional_bytes)
            for flow in NFStreamer(source=str(path), n_meters=2, n_dissections=0)
        ]
    print(len(flows), sum(flow[2] for flow in flows), sorted(flows)[:5])
