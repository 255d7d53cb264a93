"""scrapy's recipe to crawl more than once: each crawl in a process, which returns what it found through a queue."""

import http.server
import logging
import multiprocessing
import threading

import scrapy
from scrapy.crawler import CrawlerProcess


class Pages(scrapy.Spider):
    name = "pages"

    def parse(self, response):
        self.found.append(response.text)
        for link in response.css("a::attr(href)").getall():
            yield response.follow(link)


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        number = int(self.path.strip("/") or 0)
        links = [f'<a href="/{one}">' for one in (2 * number + 1, 2 * number + 2) if one < 9]
        body = f"<html><p>{number}</p>" + "".join(links)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


def crawl(queue, address):
    logging.disable(logging.CRITICAL)
    Pages.found, Pages.start_urls = [], [address]
    process = CrawlerProcess({"LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False})
    process.crawl(Pages)
    process.start()
    queue.put(sorted(Pages.found))


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(2):
        queue = context.Queue()
        process = context.Process(target=crawl, args=(queue, f"http://127.0.0.1:{server.server_port}/0"))
        process.start()
        found = queue.get()
        process.join()
        print(len(found), [text[9:10] for text in found])
