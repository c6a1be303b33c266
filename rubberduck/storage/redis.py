"""Shared limits in Redis or Valkey, by scripts that run at once and on the server's clock.

    <prefix>:{limits}:<name of a limit>   hash
        c<number>     what a cell of time has been charged (a limit per window)
        t, a, f       tokens, as of when, how often it has been full (a bucket)
        s<slice id>   amount, when, and the cell or how often full, of a slice that may still be given back
    <prefix>:{limits}:nodes               sorted set: nodes by when they were last heard of
    <prefix>:{limits}:born                since when this server knows of anything

All keys carry times to live. The braces keep them in one slot of a cluster, as a script needs it. A server that evicts
keys (`maxmemory-policy`) would forget charges: give it `noeviction` or `volatile-ttl`.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
from typing import Any

from rubberduck.core.shared_limit import SEEN, Ask, SharedLimit, Told
from rubberduck.errors import ConfigError
from rubberduck.storage.shared import PREFIX, SharedLimitsUnavailable

BORN_FOR = 86_400
"""Seconds after which a server that nobody has asked may be forgotten: to the next one it is young again."""

_BEGIN = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local key, most, rate = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local cell, lease, kept = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local present = math.floor(now / cell)
local function text(number) return string.format('%.17g', number) end

local cells, passed, moved = {}, {}, 0
local tokens, at, full = nil, now, 0
local slices = {}
local held = redis.call('HGETALL', key)
for i = 1, #held, 2 do
    local kind, name, value = string.sub(held[i], 1, 1), string.sub(held[i], 2), held[i + 1]
    if kind == 'c' then
        local number = tonumber(name)
        if number > present then
            moved = moved + tonumber(value)
            passed[#passed + 1] = held[i]
        elseif number * cell + kept <= now then
            passed[#passed + 1] = held[i]
        else
            cells[number] = tonumber(value)
        end
    elseif kind == 's' then
        local amount, granted, place = string.match(value, '(%S+) (%S+) (%S+)')
        granted = tonumber(granted)
        if granted > now or granted < now - lease then
            passed[#passed + 1] = held[i]
        else
            slices[name] = {tonumber(amount), tonumber(place)}
        end
    elseif kind == 't' then tokens = tonumber(value)
    elseif kind == 'a' then at = tonumber(value)
    elseif kind == 'f' then full = tonumber(value)
    end
end
if moved ~= 0 then cells[present] = (cells[present] or 0) + moved end
if rate > 0 then
    tokens = tokens and tokens + math.max(0, now - at) * rate or most
    if tokens >= most then tokens, full = most, full + 1 end
end
for i = 1, #passed, 1000 do
    redis.call('HDEL', key, unpack(passed, i, math.min(i + 999, #passed)))
end
local function keep(number)
    if rate > 0 then
        redis.call('HSET', key, 't', text(tokens), 'a', text(now), 'f', full)
        redis.call('PEXPIRE', key, math.ceil((kept + most / rate) * 1000))
    else
        redis.call('HSET', key, 'c' .. number, text(cells[number] or 0))
        redis.call('PEXPIRE', key, math.ceil(kept * 2000))
    end
end
"""

TAKE = (
    _BEGIN
    + """
local node, id = ARGV[6], ARGV[7]
local amount, least, owed = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - tonumber(ARGV[11])))
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. text(now), '+inf')
redis.call('ZADD', KEYS[2], text(now), node)
redis.call('EXPIRE', KEYS[2], 60)
local born = tonumber(redis.call('GET', KEYS[3]) or now)
if born > now then born = now end
redis.call('SET', KEYS[3], text(born), 'EX', ARGV[12])

local room
if rate > 0 then
    tokens = tokens - owed
    room = tokens
else
    cells[present] = (cells[present] or 0) + owed
    room = most
    for _, charged in pairs(cells) do room = room - charged end
end
local granted = math.min(amount, room)
if granted <= 1e-9 or granted + 1e-9 < least then granted = 0 end
if granted > 0 then
    redis.call('HSET', key, 's' .. id, text(granted) .. ' ' .. text(now) .. ' ' .. (rate > 0 and full or present))
    if rate > 0 then tokens = tokens - granted else cells[present] = cells[present] + granted end
end
keep(present)
local used = {}
for number, charged in pairs(cells) do
    if charged ~= 0 then
        used[#used + 1] = text(now - number * cell)
        used[#used + 1] = text(charged)
    end
end
local young = now - born < kept and 1 or 0
return {text(granted), text(tokens or 0), redis.call('ZCARD', KEYS[2]), young, table.concat(used, ' ')}
"""
)

RELEASE = (
    _BEGIN
    + """
local slice = slices[ARGV[6]]
if not slice then return 0 end
redis.call('HDEL', key, 's' .. ARGV[6])
local amount = math.max(0, math.min(tonumber(ARGV[7]), slice[1]))
if rate > 0 then
    if slice[2] == full then tokens = math.min(most, tokens + amount) end
    keep(present)
else
    cells[slice[2]] = (cells[slice[2]] or 0) - amount
    keep(slice[2])
end
return 1
"""
)


class RedisLimits:
    """A `SharedLimits` on a server that speaks Redis's protocol and runs its scripts (Redis 5, Valkey 7 or newer)."""

    def __init__(self, url: str, node: str, *, prefix: str = PREFIX) -> None:
        try:
            redis: Any = importlib.import_module("redis.asyncio")
        except ImportError:
            raise ConfigError(
                "shared.url: the package redis is not installed: pip install 'rubberduck-llm[redis]'"
            ) from None
        errors: Any = importlib.import_module("redis.exceptions")
        self._failures: tuple[type[BaseException], ...] = (errors.RedisError, OSError, ValueError, TypeError)
        self._no_script: type[BaseException] = errors.NoScriptError
        try:
            # No repeats of its own: who asks has little time, and decides by itself whom to ask how often.
            self._client = redis.Redis.from_url(
                url, decode_responses=True, retry=None, retry_on_timeout=False, retry_on_error=[], protocol=2
            )
        except ValueError:  # its text may hold a part of the password
            raise ConfigError("shared.url: is not a URL like redis://:password@host:6379/0") from None
        self._node = node
        self._prefix = f"{prefix}:{{limits}}"
        self._digests: dict[str, str] = {}
        self._numbers = itertools.count(1)

    async def connect(self) -> None:
        try:
            for script in (TAKE, RELEASE):
                self._digests[script] = await self._client.script_load(script)
        except self._failures as error:
            raise _unavailable(error) from None

    async def take(self, limit: SharedLimit, ask: Ask) -> Told:
        slice = f"{self._node}:{next(self._numbers)}"
        keys = (*self._keys(limit), f"{self._prefix}:nodes", f"{self._prefix}:born")
        wants = (self._node, slice, ask.amount, ask.least, ask.owed, SEEN, BORN_FOR)
        try:
            granted, tokens, nodes, young, used = await self._run(TAKE, keys, (*_terms(limit), *wants))
            charges = [float(number) for number in used.split()]
            ages = sorted(zip(charges[::2], charges[1::2], strict=True), reverse=True)
            return Told(slice, float(granted), tuple(ages), float(tokens), int(nodes), bool(young))
        except self._failures as error:
            raise _unavailable(error) from None

    async def release(self, limit: SharedLimit, slice: str, amount: float) -> bool:
        try:
            return bool(await self._run(RELEASE, self._keys(limit), (*_terms(limit), slice, amount)))
        except self._failures as error:
            raise _unavailable(error) from None

    async def nodes(self) -> int:
        try:
            seconds, micros = await self._client.time()
            now = seconds + micros / 1e6
            return int(await self._client.zcount(f"{self._prefix}:nodes", now - SEEN, now))
        except self._failures as error:
            raise _unavailable(error) from None

    async def leave(self) -> None:
        try:
            await self._client.zrem(f"{self._prefix}:nodes", self._node)
        except self._failures as error:
            raise _unavailable(error) from None

    async def aclose(self) -> None:
        try:
            await self._client.aclose()
        except self._failures:
            pass  # a connection that is broken already

    def _keys(self, limit: SharedLimit) -> tuple[str]:
        return (f"{self._prefix}:{limit.name}",)

    async def _run(self, script: str, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        """By its digest; the text goes to a server that does not know it yet, or no more."""
        if script in self._digests:
            try:
                return await self._client.evalsha(self._digests[script], len(keys), *keys, *arguments)
            except self._no_script:
                pass
        answer = await self._client.eval(script, len(keys), *keys, *arguments)  # from now on it is known there
        self._digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        return answer


def _terms(limit: SharedLimit) -> tuple[float, ...]:
    return (limit.most, limit.refill_rate, limit.cell, limit.lease, limit.kept)


def _unavailable(error: BaseException) -> SharedLimitsUnavailable:
    return SharedLimitsUnavailable(type(error).__name__)
