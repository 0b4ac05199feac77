# What Redis runs for an outbox, each script alone: the keys are described in _redis.py.
#
# SAVE writes any number of entries, each by itself. Before the arguments of each stands how many there are. Behind the
# first fourteen are companions, four for each: id, record, priority and content. They are queued, and due. Where the
# record is empty, it stays as it is, and a step is kept beside it.
from __future__ import annotations

from typing import Final

# What every script begins with. `ready` puts an entry into its priority's stream; `leave` takes it off its shelf.
COMMON: Final = """
local P = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function queue(priority) return P .. 'q:' .. priority end
local function ready(id, priority)
    if redis.call('ZADD', P .. 'priorities', priority, priority) == 1 then
        redis.pcall('XGROUP', 'CREATE', queue(priority), 'workers', '0', 'MKSTREAM')
    end
    local sid = redis.call('XADD', queue(priority), '*', 'id', id)
    redis.call('HSET', P .. 'e:' .. id, 'shelf', 'ready', 'sid', sid)
end
local function ring() redis.call('XADD', P .. 'bell', 'MAXLEN', '1', '*', 'ring', '1') end
"""
SAVE: Final = (
    COMMON
    + """
local is_heard = false
local function save(first, last)
local id, expected, record, begun, marked, state, shelf, at, lease, priority, claim, key, lapsed, content =
    unpack(ARGV, first, first + 13)
local e = P .. 'e:' .. id
local version, was, stood, sid, ends, place =
    unpack(redis.call('HMGET', e, 'version', 'state', 'shelf', 'sid', 'until', 'place'))
if expected == '0' then
    if version then return {'new', id} end
    if key ~= '' then
        local known = redis.call('GET', P .. 'k:' .. key)
        if known then return {'known', known} end
    end
    place = redis.call('INCR', P .. 'place')
    redis.call('SET', P .. 'c:' .. id, content)
    redis.call('ZADD', P .. 'all', place, id)
    redis.call('HSET', e, 'place', place, 'priority', priority, 'key', key)
else
    if not version then return {'gone', id} end
    if version ~= expected then return {'moved', id} end
    if lapsed == '1' and stood == 'leased' and tonumber(ends or 0) > now then return {'moved', id} end
    if was ~= state then redis.call('ZREM', P .. 's:' .. was, id) end
    if stood == 'later' then redis.call('ZREM', P .. 'later', id) end
    if shelf ~= 'leased' and (stood == 'ready' or stood == 'leased') then
        redis.call('XACK', queue(priority), 'workers', sid)
        redis.call('XDEL', queue(priority), sid)
    end
end
redis.call('ZADD', P .. 's:' .. state, place, id)
redis.call('HSET', e, 'version', expected + 1, 'state', state, 'shelf', shelf, 'claim', claim)
if record ~= '' then
    redis.call('HSET', e, 'record', record)
    redis.call('HDEL', e, 'begun', 'marked')
elseif begun ~= '' then
    redis.call('HSET', e, 'begun', begun)
else
    redis.call('HSET', e, 'marked', marked)
end
for i = first + 14, last, 4 do
    local id, record, priority, content = unpack(ARGV, i, i + 3)
    local place = redis.call('INCR', P .. 'place')
    redis.call('SET', P .. 'c:' .. id, content)
    redis.call('ZADD', P .. 'all', place, id)
    redis.call('ZADD', P .. 's:queued', place, id)
    redis.call('HSET', P .. 'e:' .. id, 'place', place, 'priority', priority, 'key', '',
        'record', record, 'version', 1, 'state', 'queued', 'claim', 0)
    ready(id, priority)
end
if shelf == 'leased' then
    redis.call('HSET', e, 'until', now + lease)
    return {'new', id}
elseif shelf == 'waiting' then
    if tonumber(at) <= now then
        ready(id, priority)
    else
        redis.call('HSET', e, 'shelf', 'later')
        redis.call('ZADD', P .. 'later', at, id)
    end
elseif shelf == 'done' then
    redis.call('ZADD', P .. 'done', at, id)
    redis.call('DEL', P .. 'c:' .. id)
end
if expected == '0' and key ~= '' then redis.call('SET', P .. 'k:' .. key, id) end  -- once there is what it names
is_heard = true
return {'new', id}
end
local answers = {}
local i = 1
while i <= #ARGV do
    local last = i + ARGV[i]
    local is_well, answer = pcall(save, i + 1, last)
    if not is_well then
        answer = {'failed', type(answer) == 'table' and answer.err or tostring(answer)}
    end
    table.insert(answers, answer)
    i = last + 1
end
if is_heard then ring() end
return {now, answers}
"""
)
TAKE: Final = (
    COMMON
    + """
local consumer, limit, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local shortest = tonumber(redis.call('GET', P .. 'lease') or lease + 1)
if lease < shortest then
    redis.call('SET', P .. 'lease', lease)
    shortest = lease
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'later', '-inf', now)) do
    redis.call('ZREM', P .. 'later', id)
    ready(id, redis.call('HGET', P .. 'e:' .. id, 'priority'))
end
local found = {}
local function give(items)
    for _, item in ipairs(items) do
        local id = item[2][2]
        local e = P .. 'e:' .. id
        local record, version, begun, marked, shelf, ends =
            unpack(redis.call('HMGET', e, 'record', 'version', 'begun', 'marked', 'shelf', 'until'))
        if (record or version) and not (shelf == 'leased' and tonumber(ends or 0) > now) then
            table.insert(found, {id, record, version or '', begun, marked, redis.call('GET', P .. 'c:' .. id)})
        end
    end
end
local function left() return limit - #found end
local priorities = redis.call('ZREVRANGE', P .. 'priorities', 0, -1)
for _, priority in ipairs(priorities) do
    local cursor = '0-0'
    repeat
        if left() <= 0 then break end
        local answer = redis.call('XAUTOCLAIM', queue(priority), 'workers', consumer, shortest, cursor, 'COUNT', left())
        cursor = answer[1]
        give(answer[2])
    until cursor == '0-0'
end
for _, priority in ipairs(priorities) do
    if left() <= 0 then break end
    local answer = redis.call(
        'XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', left(), 'STREAMS', queue(priority), '>')
    if answer then give(answer[1][2]) end
end
return {found, now}
"""
)
# An entry that is damaged, if it is still the one that was read, goes off its shelf.
SET_ASIDE: Final = (
    COMMON
    + """
local id = ARGV[1]
local version, shelf, sid, priority =
    unpack(redis.call('HMGET', P .. 'e:' .. id, 'version', 'shelf', 'sid', 'priority'))
if (version or '') == ARGV[2] and (shelf == 'ready' or shelf == 'leased') then
    redis.call('XACK', queue(priority), 'workers', sid)
    redis.call('XDEL', queue(priority), sid)
    redis.call('HSET', P .. 'e:' .. id, 'shelf', 'damaged')
end
return now
"""
)
RENEW: Final = (
    COMMON
    + """
local consumer, lease = ARGV[1], ARGV[2]
for i = 3, #ARGV, 2 do
    local e = P .. 'e:' .. ARGV[i]
    local claim, shelf, sid, priority = unpack(redis.call('HMGET', e, 'claim', 'shelf', 'sid', 'priority'))
    if claim == ARGV[i + 1] and shelf == 'leased' then
        redis.call('HSET', e, 'until', now + lease)
        redis.call('XCLAIM', queue(priority), 'workers', consumer, 0, sid, 'JUSTID')
    end
end
return now
"""
)
PRUNE: Final = (
    COMMON
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'done', '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])) do
    local state, key = unpack(redis.call('HMGET', P .. 'e:' .. id, 'state', 'key'))
    redis.call('DEL', P .. 'e:' .. id, P .. 'c:' .. id)
    if key and key ~= '' then redis.call('DEL', P .. 'k:' .. key) end
    if state then redis.call('ZREM', P .. 's:' .. state, id) end
    redis.call('ZREM', P .. 'all', id)
    redis.call('ZREM', P .. 'done', id)
end
for _, priority in ipairs(redis.call('ZRANGE', P .. 'priorities', 0, -1)) do
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', queue(priority), 'workers')) do
        local name, pending, idle = consumer[2], consumer[4], consumer[6]
        if pending == 0 and idle > tonumber(ARGV[3]) then
            redis.call('XGROUP', 'DELCONSUMER', queue(priority), 'workers', name)
        end
    end
end
return now
"""
)
# Of an entry that is set aside, `aside` is whether its content is there.
_KEPT: Final = """
local P = KEYS[1]
local function kept(id)
    local record, version, begun, marked, shelf =
        unpack(redis.call('HMGET', P .. 'e:' .. id, 'record', 'version', 'begun', 'marked', 'shelf'))
    local aside = false
    if shelf == 'damaged' then aside = redis.call('EXISTS', P .. 'c:' .. id) end
    return {id, record, version, begun, marked, aside}
end
"""
PAGE: Final = (
    _KEPT
    + """
local rows = {}
local found = redis.call('ZRANGEBYSCORE', P .. ARGV[1], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #found, 2 do table.insert(rows, {found[i + 1], unpack(kept(found[i]), 1, 6)}) end
return rows
"""
)
LOAD: Final = (
    _KEPT
    + """
local id = ARGV[1]
if not redis.call('ZSCORE', P .. 'all', id) and redis.call('EXISTS', P .. 'e:' .. id) == 0 then return false end
return kept(id)
"""
)
SIZE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
return redis.call('STRLEN', KEYS[1])
"""
# An entry that cannot be read goes altogether, if it is still the one that was read. Where it does not say its key, the
# key is looked for.
FORGET: Final = (
    COMMON
    + """
local id = ARGV[1]
local e = P .. 'e:' .. id
local function same(name, expected) return (redis.call('HGET', e, name) or '') == expected end
if not (same('record', ARGV[2]) and same('version', ARGV[3]) and same('begun', ARGV[4]) and same('marked', ARGV[5]))
then return 0 end
local function forget_key(name)
    if redis.call('GET', name) == id then redis.call('DEL', name) end
end
local key, sid, priority = unpack(redis.call('HMGET', e, 'key', 'sid', 'priority'))
if key then
    forget_key(P .. 'k:' .. key)
else
    local cursor = '0'
    repeat
        local answer = redis.call('SCAN', cursor, 'MATCH', P .. 'k:*', 'COUNT', 1000)
        cursor = answer[1]
        for _, name in ipairs(answer[2]) do forget_key(name) end
    until cursor == '0'
end
if sid and priority then
    redis.pcall('XACK', queue(priority), 'workers', sid)
    redis.pcall('XDEL', queue(priority), sid)
end
for _, name in ipairs({'all', 'later', 'done'}) do redis.call('ZREM', P .. name, id) end
for i = 6, #ARGV do redis.call('ZREM', P .. 's:' .. ARGV[i], id) end
redis.call('DEL', e, P .. 'c:' .. id)
ring()
return 1
"""
)
COUNTS: Final = """
local numbers = {}
for i, state in ipairs(ARGV) do numbers[i] = redis.call('ZCARD', KEYS[1] .. 's:' .. state) end
return numbers
"""
SWAP: Final = """
local was = redis.call('GET', KEYS[1]) or ''
if was ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
