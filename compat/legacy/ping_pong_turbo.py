"""Two processes play ping-pong over two queues."""

import argparse
import multiprocessing
from tqshim import TurboQueue as Queue

ROUNDS = 1000


def player(incoming, outgoing):
    while True:
        ball = incoming.get()
        if ball is None:
            outgoing.put("bye")
            break
        outgoing.put(ball + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=multiprocessing.get_all_start_methods())
    args = parser.parse_args()
    if args.method:
        multiprocessing.set_start_method(args.method)

    there = Queue()
    back = Queue()
    other = multiprocessing.Process(target=player, args=(there, back))
    other.start()
    ball = 0
    for _ in range(ROUNDS):
        there.put(ball + 1)
        ball = back.get(timeout=60)
    there.put(None)
    last = back.get(timeout=60)
    other.join()
    print(f"the ball was hit {ball} times; the other side says {last}")


if __name__ == "__main__":
    main()
