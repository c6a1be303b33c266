"""The registry: actors under keys, for as long as they live, and locks that outlive nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup


@pytest.fixture
def three(system, obedient):
    system.supervise(*(sup.ChildSpec(id, obedient, restart="temporary") for id in "abc"))
    return [system.whereis(id) for id in "abc"]


def do(ref, function):
    return ref.ask(function, timeout=30)


def kill(system, ref):
    over = exit_of(ref)
    system.kill(ref)
    return over.get(timeout=30)


# -- entries ---------------------------------------------------------------------------------------------


def test_a_registered_actor_is_found_with_its_value(system, three):
    a, _, _ = three
    assert system.registry.register("printer", a, value="laser") == sup.Ok()
    assert system.registry.lookup("printer") == [(a, "laser")]
    assert system.registry.whereis("printer") is a
    assert system.registry.keys(a) == ["printer"]


def test_a_unique_key_is_refused_to_a_second_owner_and_says_who_has_it(system, three):
    a, b, _ = three
    system.registry.register("printer", a, 1)
    assert system.registry.register("printer", b, 2) == sup.AlreadyRegistered(a)
    assert system.registry.register("printer", a, 3) == sup.AlreadyRegistered(a)
    assert system.registry.lookup("printer") == [(a, 1)]


def test_a_key_that_is_not_unique_has_many_owners_in_the_order_of_registration(system, three):
    a, b, c = three
    for owner, value in ((a, 1), (b, 2), (c, 3), (a, 4)):
        assert system.registry.register("topic", owner, value, unique=False) == sup.Ok()
    assert system.registry.lookup("topic") == [(a, 1), (b, 2), (c, 3), (a, 4)]
    assert system.registry.keys(a) == ["topic"]
    assert system.registry.unregister("topic", a)
    assert system.registry.lookup("topic") == [(b, 2), (c, 3)]


@pytest.mark.parametrize("first", [True, False])
def test_a_key_cannot_be_unique_and_not_at_the_same_time(system, three, first):
    a, b, _ = three
    system.registry.register("key", a, unique=first)
    with pytest.raises(sup.MixedKey, match=f"'key'.*unique={not first}"):
        system.registry.register("key", b, unique=not first)
    system.registry.unregister("key", a)
    assert system.registry.register("key", b, unique=not first) == sup.Ok()


def test_only_what_its_owner_has_registered_is_unregistered(system, three):
    a, b, _ = three
    system.registry.register("key", a)
    assert not system.registry.unregister("key", b)
    assert not system.registry.unregister("other", a)
    assert system.registry.unregister("key", a)
    assert system.registry.lookup("key") == system.registry.keys(a) == []


def test_a_value_can_be_replaced_by_its_owner_only(system, three):
    a, b, _ = three
    system.registry.register("key", a, 1)
    assert system.registry.update("key", a, 2)
    assert not system.registry.update("key", b, 3)
    assert system.registry.lookup("key") == [(a, 2)]


def test_an_actor_registers_itself_before_its_start_is_acknowledged(system, obedient):
    def on_start(actor):
        actor.context.system.registry.register("me", actor.actor_ref, "value")

    system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": on_start}))
    assert system.registry.lookup("me") == [(system.whereis("it"), "value")]


def test_entries_end_with_the_life_and_are_not_its_successors(system, obedient, eventually):
    system.supervise(sup.ChildSpec("it", obedient, restart="permanent"))
    ref = system.whereis("it")
    system.registry.register("key", ref)
    system.registry.register("topic", ref, unique=False)
    kill(system, ref)
    assert system.registry.lookup("key") == system.registry.lookup("topic") == []
    do(ref, lambda actor: None)
    assert (ref.name.epoch, system.registry.keys(ref)) == (2, [])
    assert system.registry.register("key", ref) == sup.Ok()


def test_who_hears_of_an_end_finds_the_key_free(system, three):
    a, b, _ = three
    system.registry.register("key", a)
    found = []
    a.name.incarnation.watch("test", lambda exit: found.append(system.registry.register("key", b)))
    kill(system, a)
    assert found == [sup.Ok()]


def test_a_dead_actor_cannot_be_registered(system, three):
    a, _, _ = three
    kill(system, a)
    with pytest.raises(sup.ActorDeadError, match="root/a"):
        system.registry.register("key", a)
    assert system.registry.lookup("key") == system.registry.stale() == []


def test_what_has_been_left_behind_registers_nothing_for_its_successor(system, gate):
    """The code of an abandoned incarnation may still run; through its ref it must not act as the next one."""
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref, entered, outcome = system.whereis("it"), threading.Event(), []

    def outlive(actor):
        entered.set()
        gate.wait()
        try:
            system.registry.register("key", actor.actor_ref)
        except sup.ActorDeadError as error:
            outcome.append(error.reason)
        done.set()

    done = threading.Event()
    ref.tell(outlive)
    assert entered.wait(30)
    kill(system, ref)
    do(ref, lambda actor: None)
    gate.set()
    assert done.wait(30)
    assert outcome == [sup.Abandoned("a thread cannot be killed")]
    assert system.registry.lookup("key") == []


def test_an_owner_that_ends_while_it_is_registered_leaves_nothing(system):
    """The owner's end was noted before its entry was: the entry would have stood for ever."""
    system.supervise(sup.ChildSpec("it", Obedient), max_restarts=1_000_000)
    ref, registry = system.whereis("it"), system.registry
    stop = threading.Event()

    def register() -> int:
        count = 0
        while not stop.is_set():
            count += 1
            try:
                registry.register(("key", threading.get_ident(), count), ref)
            except sup.ActorDeadError:
                pass
        return count

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(register) for _ in range(2)]
        for _ in range(100):
            kill(system, ref)
            do(ref, lambda actor: None)
        stop.set()
        assert min(each.result() for each in working) > 0
    kill(system, ref)
    assert registry.stale() == []
    assert registry._keys == registry._owned == {}


def test_an_owner_that_has_ended_is_replaced_at_once_even_before_it_is_struck_off(system, three):
    a, b, _ = three
    found = []
    a.name.incarnation.when_over("before the registry's", lambda: found.append(system.registry.register("key", b)))
    system.registry.register("key", a)
    kill(system, a)
    assert found == [sup.Ok()]
    assert system.registry.lookup("key") == [(b, None)]


def test_an_owner_that_ends_in_the_midst_of_its_registration_is_refused(system, three, monkeypatch):
    a, _, _ = three
    registry = system.registry
    add = registry._add
    life = a.name.incarnation

    def end_and_add(*arguments):
        life.exit = sup.Exit(a.path, 1, sup.Killed(), 0.0)  # its cleanup has run before, and found nothing
        add(*arguments)

    monkeypatch.setattr(registry, "_add", end_and_add)
    with pytest.raises(sup.ActorDeadError, match="root/a is dead: killed"):
        registry.register("key", a)
    life.exit = None
    assert registry._keys == registry._owned == {}


def test_a_plain_pykka_ref_is_refused(system):
    with pytest.raises(TypeError, match=r"no supervision\.ActorRef"):
        system.registry.register("key", object())


def test_a_stale_entry_is_named(system, three):
    a, _, _ = three
    system.registry.register("key", a)
    a.name.incarnation.at_end.clear()  # as if its end were lost
    kill(system, a)
    (finding,) = system.registry.stale()
    assert (finding.path, "'key'" in finding.why) == ("root/a", True)
    system.registry._keys.clear()


def seconds_for(function):
    """CPU seconds of the whole process: what other programs take of the machine is none of them."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def test_the_cost_of_an_entry_does_not_grow_with_their_number(system, three):
    a, _, _ = three
    registry = system.registry

    def seconds_to_register(start, number=1000):
        return seconds_for(lambda: [registry.register(key, a) for key in range(start, start + number)])

    few = min(seconds_to_register(start) for start in (0, 1000, 2000))
    seconds_to_register(3000, 7000)
    many = min(seconds_to_register(start) for start in (10_000, 11_000, 12_000))
    assert many < 5 * few
    assert seconds_for(lambda: kill(system, a)) < 13 * 5 * few + 1.0
    assert registry._keys == {}


def test_ten_thousand_owners_are_found_and_forgotten_at_a_cost_that_does_not_grow(system):
    handle = system.supervise(*(sup.ChildSpec(str(n), Obedient, restart="temporary") for n in range(1000)))
    refs = [system.whereis(str(n)) for n in range(1000)]
    for number in range(10_000):
        system.registry.register(number, refs[number % 1000])
    assert [len(system.registry.keys(ref)) for ref in refs] == [10] * 1000
    for ref in refs[:500]:
        system.kill(ref)
    handle.terminate_child("500").get(timeout=10)
    assert len([key for key in range(10_000) if system.registry.whereis(key)]) <= 4990


def test_one_key_may_have_ten_thousand_entries(system):
    """An end that looked for each of its entries among all of them would take a hundred times as long, not ten."""
    system.supervise(*(sup.ChildSpec(str(n), Obedient, restart="temporary") for n in range(7)))
    b, *others = [system.whereis(str(n)) for n in range(7)]

    def seconds_to_forget(entries):
        a = others.pop()
        for number in range(entries):
            system.registry.register("topic", (a, b)[number % 2], number, unique=False)
        seconds = seconds_for(lambda: kill(system, a))
        assert [value for _, value in system.registry.lookup("topic")] == list(range(1, entries, 2))
        system.registry.unregister("topic", b)
        return seconds

    few = min(seconds_to_forget(1_000) for _ in range(3))
    many = min(seconds_to_forget(10_000) for _ in range(3))
    assert many < 40 * few


# -- listeners -------------------------------------------------------------------------------------------


def test_listeners_hear_in_order_what_comes_and_goes(system, three, eventually):
    a, b, _ = three
    heard = []
    unlisten = system.registry.listen(lambda *news: heard.append(news))
    system.registry.register("key", a)
    kill(system, a)
    system.registry.register("key", b)
    eventually(lambda: len(heard) == 3)
    assert heard == [("register", "key", a), ("unregister", "key", a), ("register", "key", b)]
    unlisten()
    system.registry.unregister("key", b)
    system.registry.register("key", b)
    assert len(heard) == 3


def test_a_listener_that_fails_or_hangs_harms_no_one(system, three, gate, eventually):
    a, _, _ = three
    heard = []
    system.registry.listen(raising_listener)
    system.registry.listen(lambda *news: gate.wait())
    system.registry.listen(lambda *news: heard.append(news))
    for number in range(100):  # the gate is closed: to wait for a listener would be to wait for ever
        system.registry.register(number, a)
    gate.set()
    eventually(lambda: len(heard) == 100)


def raising_listener(*news):
    raise Boom("a listener")


def test_a_listener_may_use_the_registry(system, three, eventually):
    a, b, _ = three
    system.registry.listen(lambda what, key, owner: key == "key" and system.registry.register("echo", b))
    system.registry.register("key", a)
    eventually(lambda: system.registry.whereis("echo") is b)


def test_the_thread_of_the_listeners_ends_with_the_last_of_them(system, eventually):
    def is_there():
        return any(thread.name.startswith("supervision-listeners") for thread in threading.enumerate())

    first, second = (system.registry.listen(lambda *news: None) for _ in range(2))
    first()
    assert is_there()
    second()
    eventually(lambda: not is_there())


# -- locks -----------------------------------------------------------------------------------------------


def holding(registry, entered=None, until=None):
    """A message that makes an actor hold the lock until it is told otherwise; on either host."""

    async def on_loop(actor):
        async with registry.lock("key"):
            if entered is not None:
                entered.set()
            while until is not None and not until.is_set():
                await asyncio.sleep(0.001)

    def in_thread(actor):
        with registry.lock("key"):
            if entered is not None:
                entered.set()
            if until is not None:
                until.wait()

    return lambda actor: (on_loop if isinstance(actor, sup.Actor) else in_thread)(actor)


def is_free(registry):
    return registry._locks._lines == {}


def test_a_lock_excludes_others_and_serves_them_in_turn(system, three, eventually):
    registry, order = system.registry, []
    a, b, c = three
    entered, until = threading.Event(), threading.Event()
    first = a.ask(holding(registry, entered, until), block=False)
    assert entered.wait(30)
    waiting = []
    for n, ref in enumerate((b, c), start=2):
        waiting.append(ref.ask(holding(registry), block=False))
        waiting[-1].on_done(lambda ref=ref: order.append(ref))
        eventually(lambda n=n: len(registry._locks._lines["key"]) == n)
    assert order == []
    until.set()
    first.get(timeout=30)
    [each.get(timeout=30) for each in waiting]
    eventually(lambda: order == [b, c])
    assert is_free(registry)


def test_a_lock_protects_a_read_and_write_on_every_kind_of_host(system):
    registry, total = system.registry, [0]
    system.supervise(sup.ChildSpec("loop", Obedient), sup.ChildSpec("thread", ObedientThread))

    async def on_loop(actor):
        for _ in range(50):
            async with registry.lock("total"):
                seen = total[0]
                await asyncio.sleep(0)
                total[0] = seen + 1

    def in_thread(actor=None):
        for _ in range(50):
            with registry.lock("total"):
                seen = total[0]
                time.sleep(0)
                total[0] = seen + 1

    working = [system.whereis("loop").ask(on_loop, block=False), system.whereis("thread").ask(in_thread, block=False)]
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(in_thread) for _ in range(2)]:
            each.result()
    [each.get(timeout=10) for each in working]
    asyncio.run(on_loop(None))
    assert total == [250]


def test_a_lock_is_free_again_when_its_holder_raises(system, three):
    def fail(actor):
        with system.registry.lock("key"):
            raise Boom("boom")

    with pytest.raises(Boom):
        three[0].ask(fail, timeout=30)
    assert is_free(system.registry)


def test_a_lock_is_free_again_when_its_holder_is_killed_or_abandoned(system, three, gate):
    a, b, _ = three
    entered = threading.Event()
    a.tell(holding(system.registry, entered, gate))
    assert entered.wait(30)
    waiting = b.ask(holding(system.registry), block=False)
    kill(system, a)
    waiting.get(timeout=30)
    gate.set()


def test_a_holder_that_was_left_behind_frees_nobody_elses_lock(system, gate, eventually):
    """The lock was taken from it at its abandonment; when its block ends at last, another has it."""
    registry = system.registry
    system.supervise(sup.ChildSpec("it", ObedientThread), sup.ChildSpec("next", ObedientThread))
    entered, end, next_entered = threading.Event(), threading.Event(), threading.Event()
    ref = system.whereis("it")
    ref.tell(holding(registry, entered, end))
    assert entered.wait(30)
    zombie = ref.name.incarnation
    kill(system, ref)
    held = system.whereis("next").ask(holding(registry, next_entered, gate), block=False)
    assert next_entered.wait(30)
    end.set()
    zombie.thread.join(30)
    assert len(registry._locks._lines["key"]) == 1
    gate.set()
    held.get(timeout=30)


def test_an_abandoned_thread_that_waits_for_a_lock_ends(system, gate):
    entered = threading.Event()
    system.supervise(*(sup.ChildSpec(id, ObedientThread, restart="temporary") for id in "ab"))
    a, b = system.whereis("a"), system.whereis("b")
    held = a.ask(holding(system.registry, entered, gate), block=False)
    assert entered.wait(30)
    waits = threading.Event()
    b.tell(lambda actor: waits.set() or holding(system.registry)(actor))
    assert waits.wait(30)
    zombie = b.name.incarnation
    kill(system, b)
    zombie.thread.join(30)
    assert not zombie.thread.is_alive()
    gate.set()
    held.get(timeout=30)


def test_a_cancelled_waiter_leaves_the_line_even_in_the_moment_of_its_turn(system, on_a_loop):
    registry = system.registry

    async def scenario():
        first, second, third = (registry.lock("key") for _ in range(3))
        await first.__aenter__()
        waiting = asyncio.create_task(second.__aenter__())
        await asyncio.sleep(0)
        last = asyncio.create_task(third.__aenter__())
        await asyncio.sleep(0)
        await first.__aexit__(None, None, None)  # the second has it now, and does not know
        waiting.cancel()
        await asyncio.wait([waiting, last])
        assert waiting.cancelled()
        await third.__aexit__(None, None, None)

    on_a_loop(scenario())
    assert is_free(registry)


def test_a_lock_is_free_again_when_its_thread_ends(system):
    registry = system.registry
    holder = threading.Thread(target=lambda: registry.lock("key").__enter__())
    holder.start()
    holder.join()
    with registry.lock("key"):
        assert not is_free(registry)
    assert is_free(registry)


def test_on_a_loop_the_blocking_form_is_refused_only_where_it_would_wait(system, gate):
    registry = system.registry
    system.supervise(sup.ChildSpec("it", Obedient, expected_errors=(sup.BlockingInScheduler,)))
    ref = system.whereis("it")

    def take(actor):
        with registry.lock("key"):
            return "taken"

    assert do(ref, take) == "taken"
    with registry.lock("key"), pytest.raises(sup.BlockingInScheduler, match="'key' is taken: use async with"):
        do(ref, take)
    assert is_free(registry)


def test_asking_for_a_lock_that_one_holds_is_an_error_at_once(system, three, on_a_loop):
    registry = system.registry
    with registry.lock("key"), pytest.raises(sup.DeadlockError, match="'key'"), registry.lock("key"):
        pass

    async def twice(actor=None):
        async with registry.lock("key"), registry.lock("key"):
            pass

    with pytest.raises(sup.DeadlockError):
        on_a_loop(twice())
    assert is_free(registry)


def test_a_lock_object_serves_one_block_at_a_time(system):
    lock = system.registry.lock("key")
    with lock, pytest.raises(RuntimeError, match="for each block"), lock:
        pass
    with lock:
        pass
    assert is_free(system.registry)


# -- against a model -------------------------------------------------------------------------------------

KEYS = st.sampled_from(["k1", "k2", "k3"])
OWNERS = st.sampled_from(["a", "b", "c"])


class AgainstAModel(RuleBasedStateMachine):
    """The registry beside a plain list of (key, owner, value, unique) that says what should stand there."""

    @initialize()
    def start(self):
        self.system = sup.System("model", kill_grace=0.05)
        self.system.supervise(*(sup.ChildSpec(id, Obedient) for id in "abc"), max_restarts=1000)
        self.refs = {id: self.system.whereis(id) for id in "abc"}
        self.model = []
        self.expected_news = []
        self.news = []
        self.registry = self.system.registry
        self.registry.listen(lambda *news: self.news.append(news))

    @rule(key=KEYS, owner=OWNERS, value=st.integers(0, 3), unique=st.booleans())
    def register(self, key, owner, value, unique):
        there = [entry for entry in self.model if entry[0] == key]
        try:
            found = self.registry.register(key, self.refs[owner], value, unique)
        except sup.MixedKey:
            assert [entry[3] for entry in there] == [not unique] * max(1, len(there))
            return
        if unique and there:
            assert found == sup.AlreadyRegistered(self.refs[there[0][1]])
            return
        assert found == sup.Ok()
        self.model.append((key, owner, value, unique))
        self.expected_news.append(("register", key, self.refs[owner]))

    @rule(key=KEYS, owner=OWNERS)
    def unregister(self, key, owner):
        gone = [entry for entry in self.model if entry[:2] == (key, owner)]
        assert self.registry.unregister(key, self.refs[owner]) is bool(gone)
        self._remove(gone)

    @rule(owner=OWNERS, by_kill=st.booleans())
    def die(self, owner, by_kill):
        ref = self.refs[owner]
        over = exit_of(ref)
        if by_kill:
            self.system.kill(ref)
        else:
            ref.tell(raising(Boom("boom")))
        over.get(timeout=30)
        ref.ask(lambda actor: None, timeout=30)
        self._remove([entry for entry in self.model if entry[1] == owner])

    def _remove(self, gone):
        self.model = [entry for entry in self.model if entry not in gone]
        self.expected_news += [("unregister", key, self.refs[owner]) for key, owner, _, _ in gone]

    @invariant()
    def they_agree(self):
        if not hasattr(self, "model"):
            return
        for key in ("k1", "k2", "k3"):
            expected = [(self.refs[owner], value) for k, owner, value, _ in self.model if k == key]
            assert self.registry.lookup(key) == expected
        for owner, ref in self.refs.items():
            assert self.registry.keys(ref) == list(dict.fromkeys(k for k, o, _, _ in self.model if o == owner))
        assert self.registry.stale() == []

    def teardown(self):
        if not hasattr(self, "system"):
            return
        expected = list(self.expected_news)
        self._remove(list(self.model))
        self.system.stop(60)
        limit = time.monotonic() + 30
        while len(self.news) < len(self.expected_news) and time.monotonic() < limit:
            time.sleep(0.001)
        for key in ("k1", "k2", "k3"):
            heard = [(what, owner.path) for what, k, owner in self.news if k == key]
            assert heard[: sum(k == key for _, k, _ in expected)] == [
                (what, owner.path) for what, k, owner in expected if k == key
            ]
        assert self.registry._keys == self.registry._owned == {}


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
