"""joblib's loky pool, reused, with results large and small, and an exception."""

import numpy
from joblib import Parallel, delayed


def work(number):
    if number == 13:
        raise ValueError("thirteen")
    return number, numpy.full(1000, number)


if __name__ == "__main__":
    with Parallel(n_jobs=2, backend="loky") as parallel:
        print([(number, int(array.sum())) for number, array in parallel(delayed(work)(n) for n in range(12))])
        try:
            parallel(delayed(work)(n) for n in range(20))
        except ValueError as error:
            print(error)
    print(Parallel(n_jobs=2, backend="multiprocessing")(delayed(abs)(-n) for n in range(5)))
