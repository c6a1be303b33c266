"""Partition supervisors: work spread over copies of one child, by key."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup
from supervision.engine import vocabulary as say
from supervision.partition import PartitionHandle


@pytest.fixture
def parts(system: sup.System) -> Any:
    system.supervise(sup.partition("parts", sup.ChildSpec("it", Obedient), partitions=4))
    return system.whereis("parts")


def ids(parts: Any) -> list[str]:
    return [row[0] for row in reversed(parts.which_children().get(timeout=30))]


def test_partitions_are_numbered_and_listed(parts):
    assert isinstance(parts, sup.PartitionHandle)
    assert parts.partitions == 4
    assert ids(parts) == ["0", "1", "2", "3"]
    assert parts.count_children().get(timeout=30) == sup.Counts(4, 4, 0, 4)


@pytest.mark.parametrize(("key", "id"), [(0, "0"), (6, "2"), (-1, "3"), (2**80 + 1, "1")])
def test_an_int_is_routed_by_its_remainder(parts, key, id):
    assert parts.route(key).path == f"root/parts/{id}"
    assert parts.route(key).ask("hello", timeout=30) == "hello"


@pytest.mark.parametrize("as_key", [str, str.encode])
def test_text_is_routed_by_its_crc32(parts, as_key):
    """The check value of CRC-32, of these nine digits, is 0xCBF43926, on every machine.

    Several keys: one alone is routed rightly by a random hash once in four times."""
    known = {"123456789": 0xCBF43926, "": 0, "a": 0xE8B7BE43, "abc": 0x352441C2, "message digest": 0x20159D7F}
    routed = {key: parts.route(as_key(key)).path for key in known}
    assert routed == {key: f"root/parts/{value % 4}" for key, value in known.items()}


def test_another_process_routes_text_alike(parts):
    program = "from supervision.partition import _number_of; print(_number_of('straße') % 4)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert parts.route("straße").path == f"root/parts/{done.stdout.strip()}"


class _Named:
    """A name that is open, and no more."""

    is_open, last_exit, path = True, None, "parts"


@given(st.one_of(st.integers(), st.text(), st.binary(), st.text(alphabet="\ud800x")), st.integers(1, 50))
def test_every_key_leads_to_one_partition_and_always_the_same(key, partitions):
    handle: Any = PartitionHandle.__new__(PartitionHandle)
    handle._name, handle._routes = _Named(), tuple(range(partitions))
    assert handle.route(key) in range(partitions)
    assert handle.route(key) == handle.route(key)


def test_text_is_spread_over_all_partitions(parts):
    hits = [parts.route(f"user-{n}").path for n in range(400)]
    assert all(70 <= hits.count(f"root/parts/{n}") <= 130 for n in range(4))


@pytest.mark.parametrize("key", [None, 1.0, True, ("a",), object()])
def test_other_keys_are_refused(parts, key):
    with pytest.raises(TypeError, match="int, str or bytes"):
        parts.route(key)


def test_routing_asks_nobody(parts, system, gate):
    """The loop of all supervisors stands still, and keys are routed all the same."""
    system.supervisors.post(gate.wait)
    assert parts.route(1).path == "root/parts/1"
    gate.set()


def test_each_copy_gets_its_number_under_the_name_that_was_asked_for(system):
    class Numbered(sup.Actor):
        def __init__(self, word: str, number: int = -1) -> None:
            super().__init__()
            self.told = (word, number)

        def on_receive(self, message: Any) -> Any:
            return self.told

    spec = sup.ChildSpec("it", Numbered, args=("word",))
    system.supervise(
        sup.partition("with", spec, partitions=2, with_number="number"), sup.partition("without", spec, partitions=2)
    )
    assert [system.whereis("with").route(n).ask("?", timeout=30) for n in (0, 1)] == [("word", 0), ("word", 1)]
    assert system.whereis("without").route(1).ask("?", timeout=30) == ("word", -1)


def test_there_are_as_many_partitions_as_processors_unless_told_otherwise(system):
    system.supervise(sup.partition("parts", sup.ChildSpec("it", Obedient)))
    assert system.whereis("parts").partitions == os.cpu_count()


def test_a_partition_may_be_a_supervisor(system):
    system.supervise(sup.partition("pools", sup.dynamic("pool"), partitions=2))
    pool = system.whereis("pools").route("key")
    assert isinstance(pool, sup.DynamicHandle)
    assert pool.start_child(sup.ChildSpec("it", Obedient)).get(timeout=30).ref.path == f"{pool.path}/it"


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("no spec", {}),
        (sup.ChildSpec("it", Obedient), {"partitions": 0}),
        (sup.ChildSpec("it", Obedient), {"partitions": 2.0}),
        (sup.ChildSpec("it", Obedient), {"with_number": 3}),
        (sup.ChildSpec("it", Obedient), {"max_restart": 3}),
        (sup.ChildSpec("it", Obedient, restart="temporary"), {}),
        (sup.ChildSpec("it", Obedient, restart="transient", significant=True), {}),
        (sup.ChildSpec("it", dict), {}),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(system, spec, options):
    with pytest.raises(sup.SpecError):
        sup.partition("parts", spec, **options)
    made = sup.ChildSpec("parts", sup.PartitionSupervisor, args=(spec,), kwargs=options, kind="supervisor")
    with pytest.raises(sup.SpecError):
        system.supervise(made)


# -- restarts ---------------------------------------------------------------------------------------------


def test_a_partition_is_restarted_by_itself_and_its_route_stays(parts, crash):
    ref = parts.route(2)
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert parts.route(2) is ref
    epochs = [parts.route(n).ask(lambda actor: actor.context.epoch, timeout=30) for n in range(4)]
    assert epochs == [1, 1, 2, 1]


def test_the_strategy_may_be_another(system, crash):
    system.supervise(sup.partition("parts", sup.ChildSpec("it", Obedient), partitions=3, strategy="rest_for_one"))
    parts = system.whereis("parts")
    with pytest.raises(Boom):
        parts.route(1).ask(crash, timeout=30)
    epochs = [parts.route(n).ask(lambda actor: actor.context.epoch, timeout=30) for n in range(3)]
    assert epochs == [1, 2, 2]


def test_keys_are_routed_while_the_supervisor_is_restarted(system, parts, gate):
    """What is sent meanwhile waits for the next life of its partition."""
    ref = parts.route(1)
    over = exit_of(parts)
    system.kill(parts)
    over.get(timeout=30)
    assert parts.route(1) is ref
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2


def test_a_dead_one_routes_nothing(system, parts):
    system.stop()
    for call in (lambda: parts.route(1), lambda: parts.partitions, lambda: parts.resize(1)):
        with pytest.raises(sup.ActorDeadError, match="root/parts is dead"):
            call()


# -- another number ---------------------------------------------------------------------------------------


def test_fewer_partitions_and_more_again(parts):
    gone = parts.route(3)
    assert parts.resize(2).get(timeout=30) == sup.Ok()
    assert parts.partitions == 2
    assert ids(parts) == ["0", "1"]
    assert parts.route(3) is parts.route(1)
    assert not gone.is_alive()
    assert parts.resize(4).get(timeout=30) == sup.Ok()
    assert ids(parts) == ["0", "1", "2", "3"]
    assert parts.route(3).ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert gone.ask("its address works again", timeout=30)


def test_with_no_partitions_the_error_says_so(parts):
    assert parts.resize(0).get(timeout=30) == sup.Ok()
    with pytest.raises(sup.NoPartitions, match="0 partitions"):
        parts.route("key")
    assert parts.resize(1).get(timeout=30) == sup.Ok()
    assert parts.route("key").ask("hello", timeout=30) == "hello"


def test_the_same_number_changes_nothing(parts):
    assert parts.resize(4).get(timeout=30) == sup.Ok()
    assert parts.route(3).ask(lambda actor: actor.context.epoch, timeout=30) == 1


@pytest.mark.parametrize("partitions", [-1, 1.5, True, "2", None])
def test_what_is_no_number_of_partitions_is_refused_at_the_call(parts, partitions):
    with pytest.raises(sup.SpecError):
        parts.resize(partitions)


def test_more_than_at_first_are_refused(parts):
    with pytest.raises(sup.SpecError, match="more than 4"):
        parts.resize(5).get(timeout=30)
    assert parts.partitions == 4


def test_resizes_are_carried_out_one_after_the_other(parts):
    answers = [parts.resize(n) for n in (1, 4, 0, 3)]
    assert [answer.get(timeout=30) for answer in answers] == [sup.Ok()] * 4
    assert ids(parts) == ["0", "1", "2"]


def test_partitions_removed_are_left_alone_by_a_restart_of_all(system, crash):
    system.supervise(sup.partition("parts", sup.ChildSpec("it", Obedient), partitions=3, strategy="one_for_all"))
    parts = system.whereis("parts")
    parts.resize(2).get(timeout=30)
    with pytest.raises(Boom):
        parts.route(0).ask(crash, timeout=30)
    assert parts.route(1).ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert ids(parts) == ["0", "1"]


def test_a_partition_that_fails_to_start_ends_the_growth_where_it_is(system):
    fails: list[int] = []

    def fail(actor: Any) -> None:
        if fails and actor.context.name.endswith("/2"):
            raise Boom("no")

    spec = sup.ChildSpec("it", Obedient, kwargs={"on_start": fail})
    system.supervise(sup.partition("parts", spec, partitions=4))
    parts = system.whereis("parts")
    parts.resize(0).get(timeout=30)
    fails.append(1)
    answer = parts.resize(4).get(timeout=30)
    assert isinstance(answer, sup.StartError)
    assert answer.reason.type == "Boom"
    assert (parts.partitions, ids(parts)) == (2, ["0", "1"])
    fails.clear()
    assert parts.resize(4).get(timeout=30) == sup.Ok()


def test_no_key_leads_to_a_partition_that_is_being_stopped(system, gate):
    spec = sup.ChildSpec("it", ObedientThread, kwargs={"on_stop": lambda _: gate.wait()}, shutdown="infinity")
    system.supervise(sup.partition("parts", spec, partitions=2))
    parts = system.whereis("parts")
    resized = parts.resize(1)
    assert len(parts.which_children().get(timeout=30)) == 2
    assert parts.route(1).path == "root/parts/0"
    assert not resized.done
    gate.set()
    assert resized.get(timeout=30) == sup.Ok()


def test_a_resize_under_way_is_answered_when_the_supervisor_ends(system, gate):
    spec = sup.ChildSpec("it", ObedientThread, kwargs={"on_stop": lambda _: gate.wait()}, shutdown="infinity")
    system.supervise(sup.partition("parts", spec, partitions=2))
    parts = system.whereis("parts")
    answers = [parts.resize(1), parts.resize(2)]
    parts.count_children().get(timeout=30)
    system.kill(parts)
    for answer in answers:
        with pytest.raises(sup.ActorDeadError):
            answer.get(timeout=30)
    gate.set()
    assert parts.count_children().get(timeout=30).active == 2
    assert parts.partitions == 2


def test_children_of_other_kinds_of_supervisors_cannot_be_added(parts):
    with pytest.raises(TypeError, match="does not understand"):
        parts.ask(say.StartChild(sup.ChildSpec("x", Obedient)), timeout=30)
    assert parts.partitions == 4


def test_routes_may_be_asked_for_by_many_threads_during_resizes(parts):
    stop, wrong = threading.Event(), []

    def route() -> None:
        while not stop.is_set():
            try:
                parts.route("key")
            except sup.SupervisionError as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=route) for _ in range(2)]
    for thread in threads:
        thread.start()
    for partitions in (1, 4, 2, 3):
        parts.resize(partitions).get(timeout=30)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_failing_first_start_names_the_partition(system):
    spec = sup.ChildSpec("it", Obedient, kwargs={"on_start": raising(Boom("no"))})
    with pytest.raises(sup.StartFailedError, match="root/parts could not be started"):
        system.supervise(sup.partition("parts", spec, partitions=2))
