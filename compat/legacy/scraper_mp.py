"""A scraper: an executor's processes fetch pages and put what they find on a queue; one process makes a table of it.

The site is a small one, served on this machine by a process of its own, so that the program needs no network.
"""

import argparse
import concurrent.futures
import csv
import hashlib
import http.client
import http.server
import multiprocessing
import os
import re
import tempfile
import time
from multiprocessing import Queue

WORKERS = 4
PAGES = 120
LATENCY = 0.002  # seconds until a page comes: most sites are farther away
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]

records = None  # each worker's handle, set by start_worker()
address = None


class Site(http.server.BaseHTTPRequestHandler):
    """Pages with a title, some words, and links to at most three others; some of those are missing."""

    def do_GET(self):
        number = int(self.path.strip("/"))
        time.sleep(LATENCY)
        if number % 17 == 16:
            self.send_error(404)
            return
        links = [2 * number + 1, 2 * number + 2, number * 7 % PAGES]
        words = " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 200))
        anchors = "".join(f'<a href="/{link}">{link}</a>' for link in links if link < PAGES)
        page = f"<html><title>Page {number}</title><p>{words}</p>{anchors}</html>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        pass


def serve(ports):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        ports.put(server.server_port)
        server.serve_forever()


def write_table(found, path):
    """Write a row for each record, until None comes."""
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        for record in iter(found.get, None):
            table.writerow([record["path"], record["title"], record["words"], record["status"]])


def start_worker(queue, port):
    global records, address
    records = queue
    address = ("127.0.0.1", port)


def fetch(path):
    """Fetch a page, report it, and return the paths that it links to."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    page = response.read().decode()
    connection.close()
    if response.status != 200:
        records.put({"path": path, "title": "", "words": 0, "status": response.status})
        return []
    title = re.search("<title>(.*?)</title>", page)[1]
    words = len(re.search("<p>(.*?)</p>", page)[1].split())
    records.put({"path": path, "title": title, "words": words, "status": response.status})
    return re.findall('href="(.*?)"', page)


def crawl(executor, start):
    """Fetch whatever can be reached from a path; return the paths."""
    seen = {start}
    running = {executor.submit(fetch, start)}
    while running:
        done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            for path in future.result():
                if path not in seen:
                    seen.add(path)
                    running.add(executor.submit(fetch, path))
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    found, ports = Queue(), Queue()
    site = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    site.start()
    port = ports.get()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pages.csv")
        writer = multiprocessing.Process(target=write_table, args=(found, path))
        writer.start()
        with concurrent.futures.ProcessPoolExecutor(WORKERS, initializer=start_worker, initargs=(found, port)) as pool:
            seen = crawl(pool, "/0")
        found.put(None)
        writer.join()
        with open(path, newline="") as file:
            rows = sorted(csv.reader(file))
    site.terminate()
    site.join()

    missing = sum(row[3] == "404" for row in rows)
    print(f"{len(rows)} of {len(seen)} pages in the table, {missing} of them missing")
    print(f"words: {sum(int(row[2]) for row in rows)}")
    print(f"digest {hashlib.sha256(repr(rows).encode()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
