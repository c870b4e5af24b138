"""What is done in Redis, each in one step.

Amounts are text wherever they are kept, because Lua counts exactly to 2**53 only and money goes further; above that a
grant stays so far below the limit that rounding cannot pass it. All names begin with KEYS[1].
"""

PRELUDE = """
local P = KEYS[1]
local EXACT = 9007199254740992
local function text(number) return string.format('%.0f', number) end
local function num(value) return tonumber(value or '0') end
local function put(holder, key, held, idle)
  local h, i = P .. 'h:' .. holder, P .. 'i:' .. holder
  local before, lay = redis.call('HGET', h, key), redis.call('HGET', i, key)
  if before then redis.call('HINCRBY', P .. 'sum', key, '-' .. before) end
  if lay then redis.call('HINCRBY', P .. 'idle', key, '-' .. lay) end
  if held == '0' then
    redis.call('HDEL', h, key)
  else
    redis.call('HSET', h, key, held)
    redis.call('HINCRBY', P .. 'sum', key, held)
  end
  if idle == '0' or held == '0' then
    redis.call('HDEL', i, key)
  else
    redis.call('HSET', i, key, idle)
    redis.call('HINCRBY', P .. 'idle', key, idle)
  end
end
local function held_by(holder)
  local all, found = redis.call('HGETALL', P .. 'h:' .. holder), {}
  for n = 1, #all, 2 do found[#found + 1] = {all[n], all[n + 1]} end
  return found
end
local function drop(holder)
  for _, pair in ipairs(held_by(holder)) do put(holder, pair[1], '0', '0') end
  redis.call('ZREM', P .. 'lapses', holder)
  redis.call('SREM', P .. 'members', holder)
end
local function booked(key, amount)
  local known = redis.call('HGET', P .. 'booked', key)
  if not known or #amount > #known or (#amount == #known and amount > known) then
    redis.call('HSET', P .. 'booked', key, amount)
  end
end
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
"""

TRADE = (
    PRELUDE
    + """
local trip = cjson.decode(ARGV[1])
if redis.call('GET', P .. 'run') ~= trip.run then return cjson.encode({state = 'lost'}) end
for _, pair in ipairs(trip.booked) do booked(pair[1], pair[2]) end
local told, new = {}, {}
for _, line in ipairs(trip.lines) do
  if redis.call('HEXISTS', P .. 'booked', line.key) == 0 then
    local which = num(redis.call('HGET', P .. 'sum', line.key)) > 0 and told or new
    which[#which + 1] = line.key
  end
end
if #told + #new > 0 then return cjson.encode({state = 'missing', told = told, new = new}) end
local at, me = clock(), trip.holder
local lapsed = redis.call('ZRANGEBYSCORE', P .. 'lapses', '-inf', text(at), 'LIMIT', 0, 100)
for _, holder in ipairs(lapsed) do drop(holder) end
redis.call('SADD', P .. 'members', me)
local claimed = {}
for _, job in ipairs(trip.claims) do
  claimed[#claimed + 1] = {job, held_by('job:' .. job)}
  drop('job:' .. job)
end
for _, job in ipairs(trip.releases) do drop('job:' .. job) end
for _, park in ipairs(trip.parks) do
  drop('job:' .. park.job)
  for _, pair in ipairs(park.amounts) do put('job:' .. park.job, pair[1], pair[2], '0') end
  redis.call('ZADD', P .. 'lapses', text(at + park.seconds), 'job:' .. park.job)
end
local found = {}
for _, line in ipairs(trip.lines) do
  local key = line.key
  if line.booked ~= '-1' then booked(key, line.booked) end
  put(me, key, line.held, line.idle)
  local spent = redis.call('HGET', P .. 'booked', key)
  local sum = redis.call('HGET', P .. 'sum', key) or '0'
  local idle = num(redis.call('HGET', P .. 'idle', key)) - num(redis.call('HGET', P .. 'i:' .. me, key))
  local wanted = num(redis.call('HGET', P .. 'wanted', key)) > at
  local value, least, wish, granted = num(line.value), num(line.least), num(line.wish), 0
  local free = value - num(spent) - num(sum)
  if value > EXACT then free = free - 4096 end
  if free >= math.max(least, 1) then
    if free < wish then
      granted = free
    else
      granted = wish
      if not wanted then granted = wish + math.min(num(line.slack), math.floor((free - wish) / 8)) end
    end
  end
  if granted > 0 then
    local spare = text(math.max(0, granted - wish))
    redis.call('HINCRBY', P .. 'h:' .. me, key, text(granted))
    redis.call('HINCRBY', P .. 'sum', key, text(granted))
    if spare ~= '0' then
      redis.call('HINCRBY', P .. 'i:' .. me, key, spare)
      redis.call('HINCRBY', P .. 'idle', key, spare)
    end
  end
  if granted < wish and idle > 0 then redis.call('HSET', P .. 'wanted', key, text(at + 1)) end
  local over = num(spent) + num(sum) > value
  found[#found + 1] = {key, text(granted), spent, text(num(sum) - num(line.held)), text(idle), wanted or over}
end
for _, claim in ipairs(claimed) do
  for _, pair in ipairs(claim[2]) do
    redis.call('HINCRBY', P .. 'h:' .. me, pair[1], pair[2])
    redis.call('HINCRBY', P .. 'sum', pair[1], pair[2])
  end
end
return cjson.encode({state = 'ok', found = found, claimed = claimed})
"""
)

# What a holder keeps from now on, and what others keep of its last minute.
KEEP = (
    PRELUDE
    + """
local told = cjson.decode(ARGV[1])
if redis.call('GET', P .. 'run') ~= told.run then return cjson.encode({state = 'lost'}) end
if told.whole then drop(told.holder) end
for _, pair in ipairs(told.booked) do
  if redis.call('HEXISTS', P .. 'booked', pair[1]) == 1 then booked(pair[1], pair[2]) end
end
for _, pair in ipairs(told.keep) do
  put(told.holder, pair[1], pair[2], '0')
  redis.call('SADD', P .. 'members', told.holder)
end
for _, pair in ipairs(told.minutes) do
  put('gone:' .. told.ghost, pair[1], pair[2], '0')
  redis.call('ZADD', P .. 'lapses', text(clock() + 60), 'gone:' .. told.ghost)
end
return cjson.encode({state = 'ok'})
"""
)

HELD = (
    PRELUDE
    + """
return cjson.encode(held_by(ARGV[1]))
"""
)
