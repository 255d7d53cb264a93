"""torch's DataLoader with four workers: batches of tensors, both ways to share them; a worker that is killed."""

import os
import signal
import sys
import warnings

import torch
from torch.utils.data import DataLoader, Dataset

warnings.simplefilter("ignore")
STRATEGIES = "file_descriptor", "file_system"
ROUNDS = 60
"""In each a worker is killed."""


class Numbers(Dataset):
    def __init__(self, killed=-1):
        self.killed = killed

    def __len__(self):
        return 96

    def __getitem__(self, index):
        if index == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((64,), index), {"index": index}


def main(method):
    for strategy in STRATEGIES:
        torch.multiprocessing.set_sharing_strategy(strategy)
        loader = DataLoader(Numbers(), 8, num_workers=4, multiprocessing_context=method, persistent_workers=True)
        for _ in range(2):
            batches = [(batch[0].sum().item(), sum(batch[1]["index"].tolist())) for batch in loader]
        print(strategy, len(batches), batches[0], batches[-1])
        del loader
    killed = 0
    for number in range(ROUNDS):
        torch.multiprocessing.set_sharing_strategy(STRATEGIES[number % 2])
        loader = DataLoader(Numbers(8 * (number % 12) + 3), 4, num_workers=4, multiprocessing_context=method)
        try:
            for _ in loader:
                pass
        except RuntimeError as error:
            killed += "DataLoader worker" in str(error)
        except (OSError, EOFError):  # what it had sent can't be fetched from it any more
            killed += 1
        del loader
    print("rounds that tell of their worker:", killed)


if __name__ == "__main__":
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # who is killed leaves others' complaints, or none
    torch.set_num_threads(1)
    torch.multiprocessing.set_forkserver_preload(["torch"])
    main(sys.argv[1])
