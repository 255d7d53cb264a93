"""Thumbnails of a folder of pictures: processes shrink them, the parent shows a progress bar.

The pictures are portable pixmaps, which need no library to be read and written; without --folder some are made first.
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
from multiprocessing import Queue

WORKERS = 4
PICTURES = 60
WIDTH, HEIGHT = 160, 120
FACTOR = 4  # how many times shorter each side of a thumbnail is
BAR = 40  # characters


def make_pictures(folder, count):
    """Write pictures of coloured waves, each a little different."""
    for number in range(count):
        rows = []
        for y in range(HEIGHT):
            red = bytes((x * (number + 1) + y) % 256 for x in range(WIDTH))
            green = bytes([y * 2 % 256]) * WIDTH
            row = bytearray(3 * WIDTH)
            row[0::3], row[1::3], row[2::3] = red, green, red[::-1]
            rows.append(row)
        write_picture(os.path.join(folder, f"picture{number:03}.ppm"), WIDTH, HEIGHT, b"".join(rows))


def read_picture(path):
    with open(path, "rb") as file:
        kind, size, depth = file.readline(), file.readline(), file.readline()
        if kind != b"P6\n" or depth != b"255\n":
            raise ValueError(f"{path} is no picture of a kind that is known here")
        width, height = map(int, size.split())
        return width, height, file.read()


def write_picture(path, width, height, pixels):
    with open(path, "wb") as file:
        file.write(b"P6\n%d %d\n255\n" % (width, height))
        file.write(pixels)


def shrink(width, height, pixels):
    """Average squares of pixels, colour by colour."""
    small = bytearray(3 * (width // FACTOR) * (height // FACTOR))
    stride = 3 * width
    for colour in range(3):
        averages = []
        for top in range(0, height - FACTOR + 1, FACTOR):
            lines = [pixels[y * stride + colour : (y + 1) * stride : 3] for y in range(top, top + FACTOR)]
            columns = [sum(column) for column in zip(*lines)]
            averages += [sum(columns[x : x + FACTOR]) // FACTOR**2 for x in range(0, width - FACTOR + 1, FACTOR)]
        small[colour::3] = bytes(averages)
    return width // FACTOR, height // FACTOR, small


def work(names, done, folder, target):
    while True:
        name = names.get()
        if name is None:
            break
        try:
            width, height, pixels = shrink(*read_picture(os.path.join(folder, name)))
            write_picture(os.path.join(target, name), width, height, pixels)
        except (OSError, ValueError) as error:
            done.put((name, 0, str(error)))
        else:
            done.put((name, len(pixels), None))


def show(count, total):
    """Draw the bar, if stderr is a terminal."""
    if sys.stderr.isatty():
        full = BAR * count // total
        end = "\n" if count == total else ""
        print(f"\r[{'#' * full}{' ' * (BAR - full)}] {count}/{total}", end=end, file=sys.stderr, flush=True)


def make_thumbnails(folder, target):
    """Make a thumbnail of each picture in folder; return how many there are, their size in all, and what failed."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".ppm"))
    waiting, done = Queue(), Queue()
    workers = [multiprocessing.Process(target=work, args=(waiting, done, folder, target)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for name in names:
        waiting.put(name)
    for _ in workers:
        waiting.put(None)
    size, failed = 0, {}
    for count in range(1, len(names) + 1):
        name, its_size, error = done.get()
        size += its_size
        if error:
            failed[name] = error
        show(count, len(names))
    for worker in workers:
        worker.join()
    return len(names) - len(failed), size, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--folder", help="where pictures are (default: some are made)")
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as target:
        if args.folder is None:
            make_pictures(made, PICTURES)
        count, size, failed = make_thumbnails(args.folder or made, target)
        digest = hashlib.sha256()
        for name in sorted(os.listdir(target)):
            with open(os.path.join(target, name), "rb") as file:
                digest.update(file.read())
    print(f"{count} thumbnails, {size} bytes of pixels, {len(failed)} failed")
    print(f"digest {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
