"""Circles of waiting: noticed at once where there is one, and nowhere else."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import hypothesis.strategies as st
import pykka
import pytest
from hypothesis import HealthCheck, given, settings
from tree_rig import HOSTS, Obedient, ObedientThread

import supervision as sup
from supervision.waiting.awaiting import waits_for

TIMEOUT = 10.0


@pytest.fixture(params=["loop", "thread", "mixed"])
def four(request, system):
    """Four temporary actors: all on a loop, all in threads, or in turn."""
    hosts = {"loop": "loop loop loop loop", "thread": "thread thread thread thread", "mixed": "loop thread loop thread"}
    system.supervise(
        *(
            sup.ChildSpec(id, HOSTS[host], restart="temporary", expected_errors=(sup.DeadlockError,))
            for id, host in zip("abcd", hosts[request.param].split(), strict=True)
        )
    )
    return [system.whereis(id) for id in "abcd"]


@pytest.fixture
def loops(system):
    """Three actors on one loop."""
    system.supervise(*(sup.ChildSpec(id, Obedient, expected_errors=(sup.DeadlockError,)) for id in "abc"))
    return [system.whereis(id) for id in "abc"]


def asking(ref, message):
    """A message that makes an actor on either host wait for `ref`'s answer to `message`."""

    def handler(actor):
        future = ref.ask(message, block=False)
        return future.get() if isinstance(actor, pykka.ThreadingActor) else wait_for(future)

    return handler


async def wait_for(future):
    return await future


def waits_of(ref):
    """What the actor waits for at this moment."""
    return list(ref.name.incarnation.waiting)


def assert_names_circle(error, *refs):
    """The text names these in this order, from whichever of them noticed."""
    first, *others = text_of(error).split(" waits for ")
    assert others[-1] == first
    start = others.index(refs[0].path)
    assert others[start:] + others[:start] == [ref.path for ref in refs]


def text_of(error):
    return " ".join(map(text_of, error.exceptions)) if isinstance(error, ExceptionGroup) else str(error)


def ask(ref, message):
    return ref.ask(message, timeout=TIMEOUT)


# -- circles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_circle_of_any_length_is_an_error_that_names_all_in_it(four, length):
    ring = four[:length]
    message = asking(ring[0], "never")
    for ref in reversed(ring[1:]):
        message = asking(ref, message)
    with pytest.raises(sup.DeadlockError) as refused:
        ask(ring[0], message)
    assert_names_circle(refused.value, *ring)
    for ref in ring:
        assert ask(ref, lambda actor: "alive") == "alive"


def test_a_tail_before_the_circle_is_not_named_in_it(four):
    a, b, c, d = four
    with pytest.raises(sup.DeadlockError) as refused:
        ask(d, asking(a, asking(b, asking(c, asking(a, "never")))))
    assert_names_circle(refused.value, a, b, c)


def test_a_circle_through_an_owed_reply(four, eventually):
    a, b, _, _ = four
    owed, entered = [], threading.Event()
    b.tell(asking(a, lambda actor: owed.append(actor.owe()) or entered.set()))
    assert entered.wait(TIMEOUT)
    eventually(lambda: waits_of(b))  # whoever waits last closes the circle, and hears of it
    with pytest.raises(sup.DeadlockError, match="root/a waits for root/b waits for root/a"):
        ask(a, asking(b, "never"))
    owed[0].set()


def forwarding_to(ref, message):
    return lambda actor: actor.owe().forward(ref, message)


def test_a_debt_that_is_passed_on_to_the_asker_itself(four):
    """The circle closed when the debtor changed, not when somebody began to wait; nobody looked, and it hung."""
    a, b, _, _ = four
    with pytest.raises(sup.DeadlockError, match="root/a waits for root/a"):
        ask(a, asking(b, forwarding_to(a, "never")))
    assert ask(a, lambda actor: list(actor.seen)) == []


def test_a_debt_that_is_passed_on_to_somebody_who_waits_for_the_asker(four, eventually):
    a, b, c, _ = four
    owed, entered = [], threading.Event()
    c.tell(asking(a, lambda actor: owed.append(actor.owe()) or entered.set()))
    assert entered.wait(TIMEOUT)
    eventually(lambda: waits_of(c))
    with pytest.raises(sup.DeadlockError) as refused:
        ask(a, asking(b, forwarding_to(c, "never")))
    assert_names_circle(refused.value, a, c)
    owed[0].set()
    assert ask(c, lambda actor: list(actor.seen)) == []


def test_a_debt_that_was_passed_on_is_no_longer_the_first_debtors(four):
    a, b, c, _ = four
    passed, replies = threading.Event(), []

    def keep(actor):
        replies.append(actor.owe())
        passed.set()

    outer = a.ask(asking(b, forwarding_to(c, keep)), block=False)
    assert passed.wait(TIMEOUT)
    inner = b.ask(asking(a, "answered later"), block=False)  # no circle: it is not b that a waits for
    replies[0].set("done")
    assert outer.get(timeout=TIMEOUT) == "done"
    assert inner.get(timeout=TIMEOUT) == "answered later"


@pytest.mark.parametrize("derive", [lambda f: f.map(str), lambda f: f.filter(bool), lambda f: f.reduce(max)])
def test_a_circle_through_a_derived_future(four, derive):
    a, b, _, _ = four

    def through(actor):
        derived = derive(a.ask("never", block=False))
        return derived.get() if isinstance(actor, pykka.ThreadingActor) else wait_for(derived)

    with pytest.raises(sup.DeadlockError):
        ask(a, asking(b, through))


def test_a_circle_through_the_second_of_joined_futures(four):
    a, b, c, _ = four

    def joined(actor):
        both = c.ask("free", block=False).join(a.ask("never", block=False))
        return both.get() if isinstance(actor, pykka.ThreadingActor) else wait_for(both)

    with pytest.raises(sup.DeadlockError):
        ask(a, asking(b, joined))


def test_an_edge_is_there_only_while_somebody_waits(four):
    a, b, _, _ = four

    def ask_and_go_on(actor):
        future = b.ask(asking(a, "free"), block=False)
        return lambda: future

    assert ask(a, ask_and_go_on)().get(timeout=TIMEOUT) == "free"


def test_a_wait_that_was_given_up_is_in_no_circle(four):
    a, b, _, _ = four
    started, gate = threading.Event(), threading.Event()

    def slow(actor):
        started.set()
        return blocked(actor, gate)

    def impatient(actor):
        future = b.ask(slow, block=False, timeout=0.05)
        return future.get() if isinstance(actor, pykka.ThreadingActor) else wait_for(future)

    with pytest.raises((pykka.Timeout, sup.ActorDeadError)):
        ask(a, impatient)
    gate.set()
    assert ask(b, lambda actor: "alive") == "alive"


def blocked(actor, gate):
    async def on_loop():
        while not gate.is_set():
            await asyncio.sleep(0.001)

    return gate.wait() if isinstance(actor, pykka.ThreadingActor) else on_loop()


# -- tasks of a handler ----------------------------------------------------------------------------------


async def by_gather(first, second):
    return await asyncio.gather(first, second)


async def by_wait_for(first, second):
    return [await asyncio.wait_for(wait_for(first), 60), await second]


async def by_group(first, second):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait_for(each)) for each in (first, second)]
    return [task.result() for task in tasks]


async def by_nested_groups(first, second):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(by_group(first, second))
    return task.result()


async def by_wait(first, second):
    done, _ = await asyncio.wait([asyncio.create_task(wait_for(each)) for each in (first, second)])
    return [task.result() for task in done]


async def by_shield(first, second):
    return await asyncio.shield(by_gather(first, second))


async def by_task(first, second):
    task = asyncio.create_task(by_gather(first, second))
    return await task


WAYS = [by_gather, by_wait_for, by_group, by_nested_groups, by_wait, by_shield, by_task]


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_that_awaits_its_tasks_is_in_the_circle(loops, way):
    """By whichever means of asyncio: the edge is that of a task, and the handler waits for it."""
    a, b, c = loops

    async def handler(actor):
        return await way(b.ask(asking(a, "never"), block=False), c.ask("free", block=False))

    with pytest.raises((sup.DeadlockError, ExceptionGroup)) as refused:
        ask(a, handler)
    assert_names_circle(refused.value, a, b)


def test_a_task_that_asks_in_the_background_is_in_no_circle_with_its_handler(loops):
    """The wait of a task was taken for that of the handler that had started it, as long as the handler ran."""
    a, b, _ = loops
    asked, tasks = threading.Event(), []

    async def ask_back(actor):
        asked.set()
        return await a.ask("answerable", block=False)

    async def go_on(actor):
        tasks.append(asyncio.create_task(wait_for(b.ask(ask_back, block=False))))
        while not (asked.is_set() and waits_of(b)):
            await asyncio.sleep(0)

    ask(a, go_on)
    assert result_of(tasks[0], a) == "answerable"


def result_of(task, ref):
    """What became of a task on the loop of `ref`, awaited there."""
    return asyncio.run_coroutine_threadsafe(wait_for(task), ref.name.incarnation.scheduler.loop).result(TIMEOUT)


def test_a_task_that_asks_its_own_actor_in_the_background_is_answered(loops):
    a, _, _ = loops
    tasks = []

    async def go_on(actor):
        tasks.append(asyncio.create_task(wait_for(a.ask("answerable", block=False))))
        for _ in range(10):  # it waits, and so does its message
            await asyncio.sleep(0)
        assert len(a.name.mailbox) == 1

    ask(a, go_on)
    assert result_of(tasks[0], a) == "answerable"


@pytest.mark.parametrize("depth", [1, 2])
def test_a_task_that_is_awaited_only_after_the_circle_has_closed(loops, depth):
    """Nobody begins to wait for a reply then: the circle would never have been looked at again."""
    a, b, c = loops
    asked = threading.Event()

    def told(actor):
        asked.set()
        return wait_for(a.ask("never", block=False))

    message = told if depth == 1 else asking(c, told)

    async def await_late(actor):
        task = asyncio.create_task(wait_for(b.ask(message, block=False)))
        while not (asked.is_set() and waits_of(b) and (depth == 1 or waits_of(c))):
            await asyncio.sleep(0)
        return await task

    with pytest.raises(sup.DeadlockError, match="root/a"):
        ask(a, await_late)


def test_what_a_task_waits_for_is_told_through_the_callbacks_of_asyncio(on_a_loop):
    async def scenario():
        loop = asyncio.get_running_loop()
        mine, other = loop.create_future(), loop.create_future()
        tasks = [asyncio.create_task(way(mine, wait_for(other))) for way in WAYS if way is not by_wait_for]
        idle = asyncio.create_task(wait_for(other))
        for _ in range(10):
            await asyncio.sleep(0)
        assert all(waits_for(task, mine) and waits_for(task, other) for task in tasks)
        assert not waits_for(idle, mine)
        mine.set_result(1)
        other.set_result(2)
        await asyncio.wait([*tasks, idle])
        assert not any(waits_for(task, mine) for task in tasks)

    on_a_loop(scenario())


# -- chance ----------------------------------------------------------------------------------------------

NUMBER = 20


@pytest.fixture(scope="module")
def crowd():
    system = sup.System("crowd", kill_grace=0.05)
    system.supervise(
        *(
            sup.ChildSpec(
                f"n{number}", ObedientThread if number % 4 == 3 else Obedient, expected_errors=(sup.DeadlockError,)
            )
            for number in range(NUMBER)
        )
    )
    yield [system.whereis(f"n{number}") for number in range(NUMBER)]
    system.stop(60)


def walk(crowd, rng, depth):
    """A message that asks one or two others, chosen by chance, in a way chosen by chance."""
    if depth == 0:
        return lambda actor: "end"
    parts = [(rng.choice(crowd), walk(crowd, rng, depth - 1)) for _ in range(rng.choice((1, 1, 2)))]
    way = rng.choice(("one by one", "gather", "background", "forward"))

    def handler(actor):
        if way == "forward":
            return actor.owe().forward(*parts[0])
        futures = [ref.ask(message, block=False) for ref, message in parts]
        if isinstance(actor, pykka.ThreadingActor):
            return [future.get() for future in futures][-1]
        return on_loop(futures)

    async def on_loop(futures):
        if way == "gather":
            return (await asyncio.gather(*futures))[-1]
        if way == "background":
            tasks = [asyncio.ensure_future(wait_for(future)) for future in futures]
            await asyncio.sleep(0)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for error in [each for each in outcomes if isinstance(each, BaseException)]:
                raise error
            return outcomes[-1]
        return [await future for future in futures][-1]

    return handler


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_whoever_asks_whom_every_ask_ends_in_an_answer_or_a_deadlock(crowd, seed):
    rng = random.Random(seed)
    asks = [rng.choice(crowd).ask(walk(crowd, rng, rng.randint(1, 4)), block=False) for _ in range(30)]
    limit = time.monotonic() + TIMEOUT
    outcomes = []
    for future in asks:
        try:
            outcomes.append(future.get(timeout=limit - time.monotonic()))
        except sup.DeadlockError as error:
            outcomes.append(error)
    assert all(each == "end" or isinstance(each, sup.DeadlockError) for each in outcomes)
    for ref in crowd:
        assert ref.ask(lambda actor: "alive", timeout=TIMEOUT) == "alive"
