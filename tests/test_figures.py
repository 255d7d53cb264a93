"""compat/figures.py: the figures in the README and docs/performance.md are those that the benchmark has measured."""

from __future__ import annotations

import itertools
import json
import math
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES, ROOT, between
from told import FIGURE, PRINTED, READ, SET, TOLD, Told, flat

from compat import figures, import_time, original_speed, pictures
from tqshim.bench import programs
from tqshim.bench.kinds import FASTER_FIFO, STDLIB, TURBO, many
from tqshim.bench.measurements import measurements

NONE = "\N{EN DASH}"
MACHINE = {"processors": 2, "python": "CPython 3.11.7", "kernel": "Linux 6.18"}


def spread(median: Any, least: float = 1.0, most: float = 3.0) -> dict[str, Any]:
    return {"median": median, "min": least, "max": most}


def document(name: str, metric: str, kinds: dict[str, Any], failures: dict[str, str] | None = None) -> dict[str, Any]:
    result = {"name": name, "metrics": {metric: {"kinds": kinds}}, "failures": failures or {}}
    command = "python -m tqshim bench --only x --json"
    return {"measurements": [result], "command": command, "rounds": 3, "machine": MACHINE}


def figure(median: Any, **ratios: dict[str, Any]) -> dict[str, Any]:
    return {**spread(median, 0.0, 9.0), "ratios": ratios}


def taken(*documents: dict[str, Any]) -> figures.Figures:
    return {name: one for each in documents for name, one in figures.taken(each, "abc", "2026-01-01").items()}


def test_every_figure_that_is_told_is_one_of_the_benchmark() -> None:
    listed = itertools.chain(measurements(), programs.measurements(programs.FOLDER, None))
    known = {(one.name, metric.name): one for one in listed for metric in one.metrics}
    assert {(row.measurement, row.metric) for row in (*figures.MAIN, *figures.COSTS)} <= known.keys()
    for label, name, metric, kind, _ in figures.SHORT:
        assert kind in known[name, metric].kinds, label
    labels = [row.label for row in (*figures.MAIN, *figures.COSTS)]
    assert len(set(labels)) == len(labels)


def test_every_row_has_its_figures_and_each_command_prints_them() -> None:
    kept = figures.kept()
    names = {row.measurement for row in (*figures.MAIN, *figures.COSTS)} | {name for _, name, *_ in figures.SHORT}
    assert names | {f"tasks/{length}" for length, _ in figures.TASKS} <= kept.keys()
    assert {f"{figures.ORIGINAL}/{case}" for case in original_speed.CASES} <= kept.keys()
    listed = {one.name: one for one in itertools.chain(measurements(), programs.measurements(programs.FOLDER, None))}
    for name, one in kept.items():
        if name.startswith(f"{figures.ORIGINAL}/"):
            assert one["command"].startswith("python -m compat.original_speed")
            continue
        only = re.findall(r"--only (\S+)", one["command"])
        assert any(map(listed[name].is_called, only)) if only else "--programs" in one["command"], name
        assert one["metrics"].keys() == {metric.name for metric in listed[name].metrics}
        assert one["rounds"] > 1 and re.fullmatch("[0-9a-f]{7,}", one["commit"])


def test_the_pages_have_all_tables() -> None:
    for marker, table in figures.TABLES.items():
        assert between(marker) == "\n".join(table(figures.kept())) + "\n", "python tests/documents.py"


def test_ratios_are_told_with_their_spread() -> None:
    kinds = {
        STDLIB: figure(50_000.0),
        FASTER_FIFO: figure(75_000.0, **{STDLIB: spread(1.5, 1.25, 1.75)}),
        TURBO: figure(250_000.0, **{STDLIB: spread(5.0, 4.5, 125.0), FASTER_FIFO: spread(3.333, 3.0, 3.5)}),
        many(TURBO): figure(1_000_000.0, **{STDLIB: spread(20.0, 18.0, 21.0)}),
    }
    lines = list(figures.main_table(taken(document("bounded/1x1", "rate", kinds))))
    assert "`python -m tqshim bench --only x`, commit `abc`, 2026-01-01" in lines[1]
    assert lines[-1] == (
        f"| 1 \N{MULTIPLICATION SIGN} 1 | 50 | 75 (1.5: 1.2{NONE}1.8) | 250 (5.0: 4.5{NONE}125) | 3.3: 3.0{NONE}3.5"
        f" | {NONE} | 1,000 (20: 18{NONE}21) | {NONE} |"
    )


def test_what_never_ends_is_told() -> None:
    kinds = {STDLIB: figure(None), TURBO: figure(0.002, **{STDLIB: spread(0.5)})}
    lines = list(figures.main_table(taken(document("exit", "time", kinds))))
    assert lines[-1].startswith(f"| exit after unread items | never | {NONE} | 2 ms (0.50: 1.0{NONE}3.0) |")


def test_a_failed_measurement_is_not_kept() -> None:
    with pytest.raises(SystemExit, match=r"roundtrip failed for TurboQueue: lost"):
        taken(document("roundtrip", "p50", {}, {TURBO: "lost"}))
    with pytest.raises(SystemExit, match=r"nothing was measured"):
        taken({**document("roundtrip", "p50", {}), "measurements": []})


def test_gains_and_losses_are_sorted_by_what_was_measured() -> None:
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for ratio, (_, name, metric, kind, _) in zip(itertools.cycle((0.5, 1.0, 2.0)), figures.SHORT):
        kinds.setdefault((name, metric), {})[kind] = figure(1.0, **{STDLIB: spread(ratio)})
    kept = taken(*(document(*at, of_kinds) for at, of_kinds in kinds.items()))
    rows = [line.strip("|").split("|") for line in list(figures.short_table(kept))[4:]]
    told = [[(row[at].strip(), float(row[at + 1])) for row in rows if row[at].strip()] for at in (0, 2, 4)]
    assert sorted(label for column in told for label, _ in column) == sorted(label for label, *_ in figures.SHORT)
    gains, nothing, losses = ([ratio for _, ratio in column] for column in told)
    assert gains == [2.0] * len(gains) and nothing == [1.0] * len(nothing) and losses == [0.5] * len(losses)


@pytest.mark.parametrize(("median", "found"), [(4.0, 0), (4.5 / 1.29, 0), (5.5 * 1.29, 0), (3.0, 1), (8.0, 1)])
def test_new_figures_are_compared_with_the_spread_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], median: float, found: int
) -> None:
    monkeypatch.setattr(figures, "KEPT", tmp_path / "kept.json")
    for number, ratio in enumerate((spread(5.0, 4.5, 5.5), spread(median, median, median))):
        kinds = {STDLIB: figure(1.0), TURBO: figure(2.0, **{STDLIB: ratio})}
        (tmp_path / f"{number}.json").write_text(json.dumps(document("roundtrip", "p50", kinds)), "utf-8")
    assert figures.main(["keep", str(tmp_path / "0.json")]) == 0
    assert math.isclose(figures.kept()["roundtrip"]["metrics"]["p50"][TURBO]["median"], 2.0)
    capsys.readouterr()
    assert figures.main(["compare", str(tmp_path / "1.json")]) == found
    said = capsys.readouterr().out
    assert ("roundtrip, p50, TurboQueue over multiprocessing.Queue" in said) == bool(found)


@pytest.mark.in_turn
def test_all_that_is_kept_is_measured_again_each_by_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "python -m tqshim bench --only making --kind TurboQueue --rounds 1 --scale 0.001"
    printed = document("making", "used", {TURBO: figure(1.0)})
    kept = taken({**printed, "command": f"{command} --json"})
    assert figures.again(kept, "abc", "2026-01-01")["making"]["command"] == command
    with pytest.raises(SystemExit, match=r"bench --only making .* has not measured idle"):
        figures.again({**kept, "idle": kept["making"]}, "abc", "2026-01-01")
    monkeypatch.setattr(figures, "KEPT", tmp_path / "kept.json")
    figures.KEPT.write_text(json.dumps({"making": {**kept["making"], "command": f"{command} --only nothing"}}), "utf-8")
    with pytest.raises(SystemExit, match="--only nothing has ended with 2"):
        figures.main(["again"])
    with pytest.raises(SystemExit):
        figures.main(["again", "new.json"])
    with pytest.raises(SystemExit):
        figures.main(["compare"])


@pytest.mark.parametrize(("told", "new", "found"), [(3.0, 3.5, 0), (3.0, 20.0, 1), (None, None, 0), (None, 3.0, 1)])
def test_figures_without_a_ratio_are_compared_themselves(told: Any, new: Any, found: int) -> None:
    former, newer = (taken(document("idle", "time", {TURBO: spread(one, 2.0, 4.0)})) for one in (told, new))
    assert len(list(figures.differences(former, newer))) == found


def test_a_figure_of_which_nothing_is_told_is_a_difference() -> None:
    new = taken(document("roundtrip", "p50", {TURBO: figure(1.0)}))
    assert list(figures.differences({}, new)) == ["roundtrip, p50, TurboQueue: no figure is told"]


def test_what_original_speed_has_printed_is_kept_with_its_ratios() -> None:
    kinds = {kind: {**spread(2.0), "ratio": spread(1.5)} for kind in original_speed.KINDS}
    printed = {"command": "python -m compat.original_speed --json", "rounds": 3, "machine": MACHINE}
    kept = taken({**printed, "cases": {"1x1/100": kinds}})
    assert kept["original/1x1/100"]["metrics"]["rate"][original_speed.OURS]["ratios"] == {
        original_speed.THEIRS: spread(1.5)
    }
    assert "ratios" not in kept["original/1x1/100"]["metrics"]["rate"][original_speed.THEIRS]
    with pytest.raises(SystemExit, match=r"original/1x1/100 failed for turbo-queue 0\.8\.0: lost"):
        taken({**printed, "cases": {"1x1/100": {"failure": "lost"}}})


@pytest.mark.in_turn
def test_what_a_program_pays_before_its_first_item_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert import_time.main(["--rounds", "1"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["milliseconds", "theirs", "ours"]
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == list(import_time.PROGRAMS)
    for line in lines:
        assert re.fullmatch(r".{36}(?: +[0-9]+\.[0-9]{2}){4}", line) and float(line.split()[-2]) > 0


# -- pictures


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_drawn_from_what_is_kept_and_shown(name: str) -> None:
    drawn = pictures.PICTURES[name](figures.kept())
    assert (ROOT / name).read_text("utf-8") == drawn, "python tests/documents.py"
    assert f"]({name.partition('/')[2]})" in PAGES["docs/performance.md"]
    assert sorted(path.name for path in ROOT.glob("docs/*.svg")) == sorted(one[5:] for one in pictures.PICTURES)


def test_a_picture_has_all_bars_their_spread_command_commit_and_day() -> None:
    kinds = {STDLIB: spread(50_000.0), TURBO: spread(250_000.0, 100_000.0, 390_000.0)}
    shapes = [row.measurement for row in figures.MAIN if row.unit == "" and row.metric == "rate"]
    kept = taken(*(document(name, "rate", kinds) for name in shapes))
    text = pictures.rates(kept)
    root = xml.etree.ElementTree.fromstring(text)
    assert len(root.findall(".//*[@class='value']")) == len(root.findall(".//*[@class='spread']")) == 2 * len(shapes)
    for told in (">1 \N{MULTIPLICATION SIGN} 10<", f">{STDLIB}<", ">250<", "bench --only x, commit abc, 2026-01-01<"):
        assert told in text
    assert root.findall(".//*[@class='axis']")[-1].text == "400"
    ends = {float(one.get(end, 0)) for one in root.findall(".//*[@class='spread']") for end in ("x1", "x2")}
    assert pictures.LABELS + pictures.BARS / 4 in ends and max(ends) == pictures.LABELS + pictures.BARS * 390 / 400


# -- sentences


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.text()[:40])
def test_a_figure_in_a_sentence_is_the_one_that_is_kept(told: Told) -> None:
    assert flat(told.page).count(told.text()) == 1
    assert len(re.findall("{", told.sentence)) == len(told.figures(figures.kept()))
    assert not list(told.wrong(figures.kept()))


@pytest.mark.parametrize(("page", "sentence"), PRINTED)
def test_a_figure_that_is_not_kept_stands_beside_its_command_and_commit(page: str, sentence: str) -> None:
    assert flat(page).count(sentence) == 1
    assert re.search("commit `[0-9a-f]{7}`", sentence)
    listed = list(measurements())
    commands = re.findall(r"python -m ([\w.]+)([^`]*)`", sentence)
    assert commands or "message of commit" in sentence
    for module, options in commands:
        assert module == "tqshim" or (ROOT / f"{module.replace('.', '/')}.py").is_file()
        for name in re.findall(r"--only (\S+)", options):
            assert any(one.is_called(name) for one in listed)


@pytest.mark.parametrize("page", READ)
def test_every_figure_of_a_page_is_known(page: str) -> None:
    """It is one of the sentences that are compared, or stands beside its command, or is a setting."""
    text = flat(page)
    sentences = [(told.page, told.text()) for told in TOLD] + [*PRINTED, *SET]
    known: set[int] = set()
    for known_page, sentence in sentences:
        if known_page == page:
            at = text.find(sentence)
            assert at >= 0, sentence
            known.update(range(at, at + len(sentence)))
    loose = [
        text[max(0, found.start() - 40) : found.end() + 20]
        for found in FIGURE.finditer(text)
        if found.start() not in known
    ]
    assert not loose


def test_a_changed_figure_is_found() -> None:
    kept = figures.kept()
    for told in TOLD:
        for found in re.finditer("{.*?}", told.sentence):
            other = f"{told.sentence[: found.start()]}{{7000}}{told.sentence[found.end() :]}"
            assert list(told._replace(sentence=other).wrong(kept)), other
    assert FIGURE.search("moves nine thousand a second") and FIGURE.search("0.80 to 1.32") and FIGURE.search("18 µs")
