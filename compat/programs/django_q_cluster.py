"""django-q2: a cluster of workers, over a database, whose parts speak through queues."""

import logging
import multiprocessing
import os
import sys
import tempfile

import django
from django.conf import settings


def configure():
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_q"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_Q_FILE"]}},
        Q_CLUSTER={"name": "program", "workers": 2, "orm": "default", "timeout": 30, "retry": 60, "poll": 0.1},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=True,
        SECRET_KEY="none",
        LOGGING_CONFIG=None,
    )
    logging.disable(logging.CRITICAL)
    django.setup()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DJANGO_Q_FILE"] = os.path.join(folder, "db.sqlite3")
        configure()
        from django.core.management import call_command
        from django_q.cluster import Cluster
        from django_q.tasks import async_task, result

        call_command("migrate", verbosity=0)
        tasks = [async_task("operator.mul", number, number) for number in range(10)]
        cluster = Cluster()
        cluster.start()
        print([result(task, wait=20000) for task in tasks])
        cluster.stop()
    sys.stdout.flush()
