"""The live view: read from the books, so that a stuck actor still shows."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_rig import Boom, Obedient, ObedientThread, raising, wait_for_timer

import supervision as sup
from supervision.view.drawing import WIDTH, age, plain


def block(entered, gate):
    return lambda actor: entered.set() or gate.wait()


def test_the_tree_shows_who_is_there_and_what_they_do(timed, clock, gate, crash, eventually):
    timed.supervise(
        sup.supervisor("mid", sup.ChildSpec("stuck", ObedientThread), max_restarts=5),
        sup.ChildSpec("idle", Obedient),
        sup.ChildSpec("waits", Obedient, backoff=sup.Backoff(min=9.0, max=9.0, jitter=0.0)),
    )
    stuck = timed.whereis("mid/stuck")
    with pytest.raises(Boom):
        stuck.ask(crash, block=False).get(timeout=30)
    stuck.ask("up again", block=False).get(timeout=30)
    entered = threading.Event()
    stuck.tell(block(entered, gate))
    assert entered.wait(30)
    stuck.tell("waiting")
    timed.whereis("waits").tell(crash)
    wait_for_timer(clock, 9.0)
    eventually(lambda: timed.dead_letters == 1)
    clock.advance(3.0)
    tree = timed.tree()
    (root,) = tree.children
    mid, idle, waits = root.children
    (node,) = mid.children
    assert (node.path, node.kind, node.state, node.busy_with, node.busy_for) == (
        "root/mid/stuck",
        "thread",
        "busy",
        "function",
        3.0,
    )
    assert (node.queue, node.queue_age, node.handled, node.failed, node.restarts, node.epoch) == (1, 3.0, 1, 1, 1, 2)
    assert node.last_exit.reason.type == "Boom"
    assert (idle.kind, idle.state, idle.uptime) == ("loop", "running", 3.0)
    assert (waits.state, waits.uptime, waits.next_at, tree.at) == ("restarting", None, 9.0, 3.0)
    assert (mid.kind, mid.window, root.window) == ("supervisor", (1, 5), (0, 3))
    drawn = str(tree).splitlines()
    assert drawn[0] == "test0 (1 dead letter)"
    (line,) = [line for line in drawn if "─ waits " in line]
    assert line.startswith("! ")
    assert "restarting in 6 s" in line
    (line,) = [line for line in drawn if "─ stuck " in line]
    assert "busy 3 s" in line
    assert "queue 1 (oldest 3 s)" in line
    clock.advance(6.0)


@pytest.mark.parametrize("host", ["in a thread", "on a loop", "suspended"])
def test_the_place_where_a_busy_actor_is_shows(system, gate, host):
    entered = threading.Event()

    async def suspended(actor):
        entered.set()
        while not gate.is_set():
            await asyncio.sleep(0.01)

    system.supervise(sup.ChildSpec("it", ObedientThread if host == "in a thread" else Obedient))
    system.whereis("it").tell(suspended if host == "suspended" else block(entered, gate))
    assert entered.wait(30)
    node = system.tree().find("it")
    assert node.state == "busy"
    assert any("test_tree.py:" in place for place in node.stack)
    assert node.stack[-1].split(" in ")[1] in ("wait", "sleep")
    assert "test_tree.py:" in str(system.tree())


def test_reading_the_stack_keeps_nothing_of_the_handler_alive(system):
    class Thing:
        pass

    entered, gate, gone = threading.Event(), threading.Event(), threading.Event()

    def handler(actor):
        thing = Thing()
        weakref.finalize(thing, gone.set)
        entered.set()
        gate.wait()

    system.supervise(sup.ChildSpec("it", ObedientThread))
    system.whereis("it").tell(handler)
    assert entered.wait(30)
    gc.disable()
    try:
        tree = system.tree()
        gate.set()
        assert gone.wait(30)
    finally:
        gc.enable()
    assert tree.find("it").state == "busy"


def test_an_actor_that_reads_the_tree_sees_itself_busy(system, obedient):
    system.supervise(sup.ChildSpec("it", obedient))
    node = system.whereis("it").ask(lambda actor: system.tree().find("it"), timeout=30)
    assert (node.state, node.busy_with) == ("busy", "function")


def test_a_zombie_is_a_node_of_its_own(make_system, gate, eventually):
    system = make_system()
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref, entered = system.whereis("it"), threading.Event()
    ref.tell(block(entered, gate))
    assert entered.wait(30)
    system.kill(ref)
    (zombie,) = eventually(lambda: system.tree().zombies)
    assert (zombie.path, zombie.state, zombie.epoch, zombie.attention) == ("root/it", "zombie", 1, "zombie")
    assert any("test_tree.py" in place for place in zombie.stack)
    eventually(lambda: system.tree().find("it").epoch == 2)
    assert "! zombie root/it" in str(system.tree())
    gate.set()
    eventually(lambda: system.tree().zombies == ())


def test_a_terminated_child_is_shown_stopped_and_dead_letters_are_counted(system, obedient):
    handle = system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    handle.terminate_child("it").get(timeout=30)
    with pytest.raises(sup.ActorDeadError):
        ref.tell("nobody")
    tree = system.tree()
    assert [(node.state, node.attention) for node in tree.children[0].children] == [("stopped", None)]
    assert tree.dead_letters == 1


def test_a_child_that_starts_or_stops_shows_so(make_system, gate, eventually):
    system = make_system()
    hooks = {"on_start": lambda actor: gate.wait() and None}
    starting = threading.Thread(target=lambda: system.supervise(sup.ChildSpec("it", ObedientThread, kwargs=hooks)))
    starting.start()
    eventually(lambda: (node := system.tree().find("it")) and node.state == "starting" and node.stack)
    gate.set()
    starting.join(30)
    assert system.tree().find("it").state == "running"


def test_children_of_a_supervisor_that_waits_for_its_restart_still_show(timed, clock, crash, eventually):
    timed.supervise(
        sup.ChildSpec(
            "mid",
            sup.Supervisor,
            args=(sup.ChildSpec("it", Obedient),),
            kwargs={"max_restarts": 0},
            kind="supervisor",
            backoff=sup.Backoff(min=9.0, max=9.0, jitter=0.0),
        )
    )
    timed.whereis("mid/it").tell(crash)
    wait_for_timer(clock, 9.0)
    node = timed.tree().find("mid/it")
    assert (node.state, node.last_exit.reason.type) == ("restarting", "Boom")
    clock.advance(9.0)
    eventually(lambda: timed.tree().find("mid/it").state == "running")


def test_the_order_is_that_of_the_specs_also_after_the_supervisor_was_restarted(system, crash, eventually):
    ids = [f"child{number}" for number in range(9)]
    system.supervise(sup.supervisor("mid", *(sup.ChildSpec(id, Obedient) for id in ids), max_restarts=0))
    system.whereis("mid/child3").tell(crash)
    eventually(lambda: system.tree().find("mid").epoch == 2 and system.tree().find("mid").state == "running")
    assert [node.id for node in system.tree().find("mid").children] == ids


def test_the_tree_of_a_stopped_system_is_bare(system):
    system.supervise(sup.ChildSpec("it", Obedient))
    system.stop()
    assert system.tree().children == ()
    assert str(system.tree()) == "test0"


def test_monitors_links_and_debts_show(system):
    system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient))
    a, b = system.whereis("a"), system.whereis("b")
    a.ask(lambda actor: actor.monitor(b), timeout=30)
    future = b.ask(lambda actor: actor.owe() and None, block=False)
    b.ask("next", timeout=30)
    node = system.tree().find("b")
    assert (node.monitors, node.links, node.owed) == (1, 0, 1)
    assert not future.done
    a.ask(lambda actor: actor.link(b), timeout=30)
    assert system.tree().find("b").links == 1


def test_dropped_events_show(system):
    system.events.dropped = 7
    assert system.tree().events_dropped == 7
    assert str(system.tree()) == "test0 (7 dropped events)"


def test_a_path_is_found_as_whereis_finds_it(system):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)))
    tree = system.tree()
    assert tree.find("mid/it") is tree.find("root/mid/it")
    assert tree.find("root").path == "root"
    assert tree.find("it") is None


def test_the_tree_survives_json(system, crash, eventually):
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(crash)
    eventually(lambda: (node := system.tree().find("it")).epoch == 2 and node.state == "running")
    told = json.loads(json.dumps(system.tree().to_dict()))
    (node,) = told["children"][0]["children"]
    assert (node["path"], node["state"], node["attention"]) == ("root/it", "running", None)
    assert (node["last_exit"]["kind"], node["last_exit"]["reason"]) == ("Crash", "crash: Boom: boom")
    assert set(node) == {*sup.Node.__dataclass_fields__, "attention"}


def test_it_can_be_read_while_everything_changes(make_system):
    """A dictionary that changes while it is read raises RuntimeError."""
    system = make_system()
    system.supervise(sup.supervisor("mid", max_restarts=10**6))
    mid, over, failed = system.whereis("mid"), threading.Event(), []

    def read() -> None:
        while not over.is_set():
            try:
                str(system.tree())
                json.dumps(system.tree().to_dict())
            except Exception as error:  # noqa: BLE001  (whatever it is, the test is to show it)
                failed.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(12):
            for each in [mid.start_child(sup.ChildSpec(str(number), Obedient)) for number in range(5)]:
                each.get(timeout=30).ref.tell(raising(Boom("again")))
            for number in range(5):
                mid.terminate_child(str(number)).get(timeout=30)
                mid.delete_child(str(number)).get(timeout=30)
    finally:
        over.set()
        for reader in readers:
            reader.join(30)
    assert failed == []


def test_a_window_that_is_looked_at_from_outside_forgets_nothing():
    from supervision.engine.intensity import Intensity

    window = Intensity(3, 5.0)
    window.allow(1.0)
    window.allow(4.0)
    assert (window.look(7.0), window.look(3.0), window.used(4.0)) == (1, 2, 2)


# -- the drawing ---------------------------------------------------------------------------------------------


def node(**values):
    plain = dict.fromkeys(("queue", "owed", "handled", "failed", "late", "restarts", "dead_letters"), 0)
    plain |= {"path": "root", "kind": "loop", "actor": "It", "state": "running", "epoch": 1, "uptime": 1.0}
    return sup.Node(**{**plain, "busy_with": None, "busy_for": None, "last_exit": None, **values})


def test_nothing_that_a_terminal_would_obey_is_drawn_and_no_line_is_too_long():
    bad = "\x1b[31mred\nnew line\u202e" + "x" * 300
    exit = sup.Exit("root", 1, sup.Crash("Boom", bad), 0.0)
    drawn = str(sup.Tree(bad[:30], (node(path=bad, actor=bad, state="stopped", last_exit=exit, stack=(bad,)),), 0))
    assert all(line.isprintable() and len(line) <= WIDTH for line in drawn.split("\n"))
    assert r"\x1b[31mred\nnew line" in drawn


def test_of_very_many_children_only_the_conspicuous_are_all_drawn():
    children = tuple(node(path=f"root/{number}") for number in range(10_000))
    children = (*children[:5000], node(path="root/ill", state="restarting"), *children[5000:])
    lines = str(sup.Tree("many", (node(children=children),), 0)).splitlines()
    assert len(lines) < 50
    assert [line for line in lines if "─ ill" in line and line.startswith("! ")]
    assert "… 9970 more" in "\n".join(lines)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, None),
        ({"busy_for": 4.9}, None),
        ({"busy_for": 5.0}, "stuck"),
        ({"queue": 1, "queue_age": 5.0}, "queue"),
        ({"window": (2, 3)}, None),
        ({"window": (3, 3)}, "window"),
        ({"window": (0, 0)}, None),
        ({"state": "restarting"}, "restarting"),
        ({"state": "stopped"}, None),
        ({"state": "stopped", "last_exit": SimpleNamespace(reason=sup.Shutdown())}, None),
        ({"state": "stopped", "last_exit": SimpleNamespace(reason=sup.Killed())}, "ended"),
        ({"last_exit": SimpleNamespace(reason=sup.Killed())}, None),
    ],
)
def test_what_needs_attention_is_marked(values, why):
    assert node(**values).attention == why


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (0.34, "0.3 s"),
        (1, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
        (8_640_000, "100 d"),
    ],
)
def test_ages_have_units_of_people(seconds, text):
    assert age(seconds) == text


@given(st.floats(min_value=0, max_value=1e9))
def test_an_age_is_short(seconds):
    assert len(age(seconds)) <= 8


@given(st.text())
def test_plain_text_is_printable_and_printable_text_is_left_as_it_is(text):
    assert plain(text).isprintable()
    if text.isprintable():
        assert plain(text) == text
