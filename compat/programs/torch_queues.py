"""torch.multiprocessing: tensors in queues, of which the sender keeps and changes some; models by spawn."""

import sys

import torch
import torch.multiprocessing


def work(tasks, results, changed):
    torch.set_num_threads(1)
    for tensor in iter(tasks.get, None):
        tensor += 1
        results.put((tensor.shape, tensor.sum().item(), tensor * 2))
        del tensor
    changed.wait()
    results.put("done")


if __name__ == "__main__":
    torch.set_num_threads(1)
    context = torch.multiprocessing.get_context(sys.argv[1])
    tasks, results, changed = context.Queue(), context.Queue(), context.Event()
    process = context.Process(target=work, args=(tasks, results, changed))
    process.start()
    shared = torch.zeros(100_000)
    for number in range(10):
        tasks.put(shared)
        shape, total, double = results.get()
        assert total == 100_000 * (number + 1) and double[0] == 2 * (number + 1), (total, double)
    print(tuple(shape), shared[0].item())
    for size in (1, 100, 10_000):
        tasks.put(torch.arange(size, dtype=torch.float64))
        print(results.get()[1])
    tasks.put(torch.nn.Linear(2, 3).weight.detach())
    print(tuple(results.get()[0]))
    tasks.put(None)
    changed.set()
    print(results.get())
    process.join()
    print(process.exitcode)
