"""gensim's LdaMulticore: jobs go to worker processes through a bounded queue, and what they found comes back."""

import multiprocessing
import random

from gensim.corpora import Dictionary
from gensim.models import LdaMulticore

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    choose = random.Random(1)
    words = {"fruit": ["apple", "pear", "plum", "fig"], "tool": ["saw", "file", "drill", "plane"]}
    texts = [choose.choices(words[kind], k=12) for kind in ("fruit", "tool") * 60]
    known = Dictionary(texts)
    corpus = [known.doc2bow(text) for text in texts]
    model = LdaMulticore(corpus, id2word=known, num_topics=2, workers=1, passes=3, random_state=1, chunksize=20)
    print(sorted(sorted(word for word, _ in model.show_topic(topic, 4)) for topic in range(2)))
    several = LdaMulticore(corpus, id2word=known, num_topics=2, workers=3, passes=3, random_state=1, chunksize=10)
    print(several.num_updates, len(several.print_topics()))
