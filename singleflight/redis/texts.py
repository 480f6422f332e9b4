"""What runs on the server: one script for each step of a flight.

An entry has two hashes, in one slot of a cluster. `KEYS[1]` holds values, `KEYS[2]` leases and waiters, for
all versions of the function side by side: a field is a letter and the version (with its length before it).

    in KEYS[1]  v envelope, l end of its life, f end of its freshness, b birth
    in KEYS[2]  t token, u end of the lease, n name of the leader, c chain of flights that it belongs to;
                r retries noted for the next of the chain d, s end of that note;
                e chain that has ended, i end of that note, p what it passed if it stored nothing;
                w with a process's channel behind the version: a waiter

Fields have no expiry of their own, so each keeps its end, in milliseconds of the server's clock; the hash
expires with the last of them, and no key is ever without an expiry. A script that fails in the middle is not
undone: what may fail though all else is allowed (`PUBLISH`, by a missing right) comes last and its failure is
ignored: waiters ask again when the lease ends. Nothing is written before all is decided, so a server that
takes no writes answers a claim that finds a value.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final, NamedTuple

__all__ = ["CHECK", "CLAIM", "CUT", "DROP", "PASS", "PUBLISH", "PUT", "RAISE", "RELEASE", "RENEW", "Script"]


class Script(NamedTuple):
    """A script's name, its text, and the digest by which the server knows it."""

    name: str
    text: str
    sha: str


def _script(name: str, *parts: str) -> Script:
    text = "".join(parts).strip()
    return Script(name, text, sha1(text.encode()).hexdigest())


_TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function at(ms) return string.format('%.0f', ms) end
local function keep(key, ms)  -- until the latest end of what it holds
  if redis.call('PTTL', key) < tonumber(ms) then redis.call('PEXPIRE', key, ms) end
end
local function tell(channel, message) redis.pcall('PUBLISH', channel, message) end
"""

# How a number of `fleet.cuts` follows on the one that a key holds, which may have been lost, or be anything.
_NEXT = """
local function following(key, known)
  local last = tonumber(redis.call('GET', key)) or 0
  if not (last < 2^52) then last = 0 end  -- as `fleet.cuts.MOST`
  return math.max(now, math.max(last, tonumber(known)) + 1)
end
"""

_WAKE = """
local function wake(channels, kind, version, chain, payload)
  local name = string.char(#KEYS[2]) .. KEYS[2] .. version
  local message = kind .. name .. string.char(#chain) .. chain .. payload
  for _, channel in ipairs(channels) do tell(channel, message) end
  return #channels
end
local function wake_with(channels, version, chain, envelope, fresh, life, birth, most)
  if #envelope > tonumber(most) then return wake(channels, 'a', version, chain, '') end
  return wake(channels, 'v', version, chain, struct.pack('>I8I8I8', life, fresh, birth) .. envelope)
end
"""

_STORE = """
local function store(version, envelope, fresh, life, birth)
  if redis.call('HLEN', KEYS[1]) > 4 then  -- what other versions left
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(field, 1, 1) == 'l' and tonumber(redis.call('HGET', KEYS[1], field)) <= now then
        local old = string.sub(field, 2)
        redis.call('HDEL', KEYS[1], 'v' .. old, 'l' .. old, 'f' .. old, 'b' .. old)
      end
    end
  end
  redis.call('HSET', KEYS[1], 'v' .. version, envelope, 'l' .. version, at(now + life),
    'f' .. version, at(now + fresh), 'b' .. version, birth)
  keep(KEYS[1], life)
end
"""

_LEASE = """
local version, token = ARGV[1], ARGV[2]
local held = redis.call('HMGET', KEYS[2], 't' .. version, 'u' .. version, 'c' .. version, 'i' .. version)
if held[1] ~= token or tonumber(held[2]) <= now then return -1 end
"""

_WAITERS = """
local function lookup()  -- the channels of the waiters of each version, and what ends with our flight
  local waiters, mine = {}, {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    local last = string.byte(field, 2) + 2
    local of = string.sub(field, 2, last)
    local letter = string.sub(field, 1, 1)
    if of == version and not string.find('eip', letter) then mine[#mine + 1] = field end
    if letter == 'w' then
      waiters[of] = waiters[of] or {}
      table.insert(waiters[of], string.sub(field, last + 1))
    end
  end
  return waiters, mine
end
"""

_FREE = """
local waiters, mine = lookup()
local channels = waiters[version] or {}
local function note(lease, ...)
  redis.call('HSET', KEYS[2], ...)
  keep(KEYS[2], lease)
end
local function free()  -- returns True if the flight was a retry
  if (tonumber(held[4]) or 0) <= now then
    for letter in string.gmatch('eip', '.') do mine[#mine + 1] = letter .. version end
  end
  local retry = redis.call('HEXISTS', KEYS[2], 'd' .. version) == 1
  redis.call('HDEL', KEYS[2], unpack(mine))
  return retry
end
local function finish(lease, passed)  -- those who waited for any flight of the chain may ask how it ended
  if free() or #channels > 0 then
    note(lease, 'e' .. version, held[3], 'i' .. version, at(now + lease))
    if passed then note(lease, 'p' .. version, passed) else redis.call('HDEL', KEYS[2], 'p' .. version) end
  end
end
local function release(retries, lease)
  free()
  if #channels > 0 then
    note(lease, 'r' .. version, retries, 'd' .. version, held[3], 's' .. version, at(now + lease))
  end
  return wake(channels, 'a', version, held[3], '')
end
"""

# Of a lease that is refused nothing is touched; of one that is ours everything goes.
_OURS = _TIME + _LEASE + _WAITERS + _WAKE + _FREE

# What is asked most often: few arguments and one string for a reply, since clients take long to write and
# read many. What matters under another's lease alone, or of a chain that was waited for, is read only then.
CLAIM: Final = _script(
    "claim",
    _TIME,
    """
local version = ARGV[1]
local mode, most, seen, lease, chain, token, channel, name =
  struct.unpack('>c1I4I8I4Bc0Bc0Bc0Bc0', ARGV[2])
local function read(key, letters)
  local fields = {}
  for i = 1, #letters do fields[i] = string.sub(letters, i, i) .. version end
  return redis.call('HMGET', key, unpack(fields))
end
local awaited = false
if chain ~= '' then
  local ended = read(KEYS[2], 'eip')
  awaited = ended[1] == chain and tonumber(ended[2]) > now
  if awaited and ended[3] then return 'p' .. ended[3] end
end
if mode ~= 'f' or awaited then
  local ends = redis.call('HMGET', KEYS[1], 'l' .. version, 'f' .. version, 'b' .. version)
  local left, fresh = (tonumber(ends[1]) or 0) - now, (tonumber(ends[2]) or 0) - now
  local birth = tonumber(ends[3])
  if left > 0 and (mode ~= 'n' or (fresh > 0 and birth > seen)) then
    local size = redis.call('HSTRLEN', KEYS[1], 'v' .. version)
    if size > most then return 'o' .. struct.pack('>I8', size) end
    local times = struct.pack('>I8I8I8', left, math.max(0, fresh), birth)
    return 'v' .. times .. redis.call('HGET', KEYS[1], 'v' .. version)
  end
  if mode == 'k' then return 'a' end
end
local held = read(KEYS[2], 'tuncrds')
local left = (tonumber(held[2]) or 0) - now
if left > 0 and held[1] ~= token then
  local told = struct.pack('>I8Bc0', left, #held[3], held[3])
  if mode == 'n' then return 'n' .. told end
  redis.call('HSET', KEYS[2], 'w' .. version .. channel, '')
  keep(KEYS[2], left + lease)  -- if the leader dies, whoever is next continues its chain
  return 'w' .. told .. struct.pack('>Bc0', #held[4], held[4])
end
local noted = (tonumber(held[7]) or 0) > now
redis.call('HSET', KEYS[2], 't' .. version, token, 'u' .. version, at(now + lease), 'n' .. version, name,
  'c' .. version, noted and held[6] or held[4] or token)
keep(KEYS[2], lease)
return 'l' .. struct.pack('>i8I8', noted and tonumber(held[5]) or -1, now)
""",
)

PUBLISH: Final = _script(
    "publish",
    _OURS,
    _STORE,
    """
local envelope, fresh, life, birth, most, bus, head, lease, retries = unpack(ARGV, 3)
if retries and #channels > 0 then return release(retries, lease) end
local before = redis.call('HGET', KEYS[1], 'l' .. version)
store(version, envelope, fresh, life, birth)
finish(lease)
wake_with(channels, version, held[3], envelope, fresh, life, birth, most)
if before and tonumber(before) > now then tell(bus, 'n' .. head .. birth) end
return #channels
""",
)

PASS: Final = _script(
    "pass", _OURS, "finish(ARGV[4], ARGV[3])\nreturn wake(channels, 'p', version, held[3], ARGV[3])\n"
)

RELEASE: Final = _script("release", _OURS, "return release(ARGV[3], ARGV[4])\n")

RENEW: Final = _script(
    "renew",
    _TIME,
    _LEASE,
    """
redis.call('HSET', KEYS[2], 'u' .. version, at(now + ARGV[3]))
keep(KEYS[2], ARGV[3])
return 1
""",
)

_DROP = """
local waiters = lookup()
local dropped = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2])
"""

DROP: Final = _script(
    "drop",
    "local version, bus, head = nil, unpack(ARGV)\n",
    _TIME,
    _WAITERS,
    _WAKE,
    _DROP,
    """
for of, channels in pairs(waiters) do wake(channels, 'a', of, '', '') end
tell(bus, 'd' .. head .. at(now))
return dropped
""",
)

PUT: Final = _script(
    "put",
    """
local version, envelope, fresh, life, most, bus, head = unpack(ARGV)
local chain = redis.call('HGET', KEYS[2], 'c' .. version) or ''
""",
    _TIME,
    _WAITERS,
    _WAKE,
    _STORE,
    _DROP,
    """
store(version, envelope, fresh, life, at(now))
for of, channels in pairs(waiters) do
  if of == version then
    wake_with(channels, of, chain, envelope, fresh, life, now, most)
  else
    wake(channels, 'a', of, '', '')
  end
end
tell(bus, 'd' .. head .. at(now))
return dropped
""",
)

RAISE: Final = _script(
    "raise",
    _TIME,
    _NEXT,
    """
local known, life, bus, head = unpack(ARGV)
local epoch = following(KEYS[1], known)
redis.call('SET', KEYS[1], at(epoch), 'PX', life)
tell(bus, 'e' .. head .. at(epoch))
return epoch
""",
)

CUT: Final = _script(
    "cut",
    _TIME,
    _NEXT,
    """
local known, life, bus, head = unpack(ARGV)
local cut = following(KEYS[1], known)
redis.call('SET', KEYS[1], at(cut), 'PX', life)
redis.call('SET', KEYS[2], at(cut), 'PX', life)
tell(bus, 'c' .. head .. at(cut))
return cut
""",
)

CHECK: Final = _script(
    "check",
    """
local missing = {}
local function check(...)
  if not redis.acl_check_cmd(...) then missing[#missing + 1] = (...) end
end
check('del', KEYS[1])
check('get', KEYS[1])
check('mget', KEYS[1])
check('set', KEYS[1], '1', 'px', '1')
check('pttl', KEYS[1])
check('pexpire', KEYS[1], '1')
check('hget', KEYS[1], 'x')
check('hmget', KEYS[1], 'x')
check('hgetall', KEYS[1])
check('hset', KEYS[1], 'x', 'x')
check('hdel', KEYS[1], 'x')
check('hlen', KEYS[1])
check('hkeys', KEYS[1])
check('hexists', KEYS[1], 'x')
check('hstrlen', KEYS[1], 'x')
check('eval', 'return 1', '1', KEYS[1])
check('time')
check('ping')
for _, channel in ipairs(ARGV) do
  check('publish', channel, '')
  check('subscribe', channel)
end
return missing
""",
)
