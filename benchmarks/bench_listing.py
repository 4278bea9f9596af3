"""What listing the input costs: a bucket's prefixes side by side beside one after another, a local tree by threads.

    python benchmarks/bench_listing.py [--objects 300000] [--files 30000] [--latency 0.05] [--json FILE]

The bucket is a list of names behind a server that answers a thousand a page, each after a while, as over a network
(the emulator of the tests has no pages, and takes longer for each answer than a network would). The local tree holds
empty files. Both have IDC's folders: a thousand patches a patient, two labels.
"""

from __future__ import annotations

import argparse
import bisect
import concurrent.futures
import http.server
import json
import multiprocessing
import os
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import common

from components.adapters.listing import list_images
from components.storage.gcs_client import bucket

PER_PATIENT = 1000
PAGE = 1000
"""Names an answer of Google Storage holds."""


def names(count: int) -> Iterator[str]:
    """Paths as IDC has them."""
    for number in range(count):
        patient, label = 10000 + number // PER_PATIENT, int(number % 10 >= 7)
        yield f"{patient}/{label}/{patient}_idx5_x{number % PER_PATIENT}_y1_class{label}.png"


def draw(root: Path, count: int) -> None:
    """Empty files below `root`, by patient and label."""
    for name in names(count):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


class Listing(http.server.BaseHTTPRequestHandler):
    """Answers as Google Storage lists: a thousand names a page, after a network's delay; nothing else."""

    names: list[str] = []
    latency = 0.0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(self.latency)
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        prefix, delimiter, after = (asked.get(key, "") for key in ("prefix", "delimiter", "pageToken"))
        items, prefixes = [], []
        at = bisect.bisect_right(self.names, after) if after else bisect.bisect_left(self.names, prefix)
        while at < len(self.names) and self.names[at].startswith(prefix) and len(items) + len(prefixes) < PAGE:
            after = self.names[at]
            folder, slash, _ = after[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if slash:
                prefixes.append(f"{prefix}{folder}/")
                after = f"{prefix}{folder}/\U0010ffff"
                at = bisect.bisect_right(self.names, after)
            else:
                items.append({"name": after, "size": "1", "generation": "1"})
                at += 1
        answer = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        if at < len(self.names) and self.names[at].startswith(prefix):
            answer["nextPageToken"] = after
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def threads_scan(root: Path) -> int:
    """Files below `root` with size and time, the folders of each patient by one of four threads: the peer."""

    def scan(folder: str) -> int:
        found = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += scan(entry.path)
                else:
                    found += entry.stat(follow_symlinks=False).st_size == 0
        return found

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(scan, [entry.path for entry in os.scandir(root)]))


def one_thread_scan(root: Path) -> int:
    """As `threads_scan`, by one thread."""
    return sum(
        entry.stat(follow_symlinks=False).st_size == 0
        for folder, _, _ in os.walk(root)
        for entry in os.scandir(folder)
        if not entry.is_dir(follow_symlinks=False)
    )


def best(what: Callable[[], int], count: int, repeats: int = 3) -> float:
    """Seconds of the fastest of three calls, each of which must find everything."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = what()
        times.append(time.perf_counter() - start)
        assert found == count, (found, count)
    return min(times)


def serve(count: int, latency: float, port: multiprocessing.Queue[int]) -> None:
    """A bucket of names, in a process of its own: it shall not share the reader's interpreter."""
    Listing.names, Listing.latency = sorted(names(count)), latency
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    port.put(server.server_address[1])
    server.serve_forever()


def bucket_part(count: int, latency: float) -> None:
    """One listing beside prefixes side by side."""
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(count, latency, port), daemon=True)
    server.start()
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port.get()}"
    try:
        bare = best(lambda: sum(1 for _ in bucket("raw").list_blobs()), count, 1)
        ours = best(lambda: len(list_images("gs://raw", frozenset({".png"})).files), count, 1)
    finally:
        server.terminate()
        server.join()
    common.figure(
        "scale/listing bucket",
        f"listing {count:,} objects, {latency * 1000:.0f} ms a request: one listing / prefixes side by side",
        f"{bare / ours:.1f} times as long ({bare:.1f} s against {ours:.1f} s)",
    )


def local_part(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), count)
        one, four = best(lambda: one_thread_scan(Path(folder)), count), best(lambda: threads_scan(Path(folder)), count)
        ours = best(lambda: len(list_images(folder, frozenset({".png"})).files), count)
    common.figure(
        "scale/listing local",
        f"listing {count:,} files of a local disk, directories in the page cache: four threads / one; ours / one",
        f"{four / one:.2f}; {ours / one:.2f} ({ours:.2f} s)",
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=300_000)
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that a request waits")
    common.add_json_option(parser)
    args = parser.parse_args()
    common.environment(Path(__file__).name, 3)
    local_part(args.files)
    bucket_part(args.objects, args.latency)
    common.leave_figures(args.json)


if __name__ == "__main__":
    main()
