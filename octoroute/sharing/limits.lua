-- The limits of tenants over all gateways: what octoroute/_windows.pxd is in one, by Redis's own clock.
--
-- A gateway lives:
--   KEYS: all gateways, the one that asks.  ARGV: 'beat', its id.
--   Answer: how many live; since when this one is known here; 1 where it was not before.
-- A worker tells and asks about one tenant:
--   KEYS: its requests, its tokens, its places.
--   ARGV: 'tell', the worker's id, limits of requests, tokens, places (0: none),
--         requests that the worker has in flight, requests and tokens let through while Redis was away,
--         how many requests ask, the tokens of each, then corrections of three: second, reserved, used.
--   Answer: the second, then seven for each that asks: verdict; used, wait, reset of requests and of tokens (ms).
local SECONDS = 61
local LIVE_SECONDS = 10    -- what is silent for longer has nothing in flight
local KNOWN_SECONDS = 122  -- by then the windows have forgotten what a gateway told
local ADMITTED, REQUESTS, IN_FLIGHT, TOKENS = 0, 1, 2, 3

local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second + tonumber(time[2]) / 1e6
local me = ARGV[2]

if ARGV[1] == 'beat' then
  local since = redis.call('GET', KEYS[2])
  local new = not since
  if new then
    since = string.format('%d%06d', second, tonumber(time[2]))
    redis.call('SET', KEYS[2], since)
  end
  redis.call('EXPIRE', KEYS[2], KNOWN_SECONDS)
  redis.call('ZADD', KEYS[1], now, me)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - LIVE_SECONDS)
  redis.call('EXPIRE', KEYS[1], KNOWN_SECONDS)
  return {redis.call('ZCARD', KEYS[1]), tonumber(since), new and 1 or 0}
end

local function add(window, at, amount)
  local slot = at % SECONDS + 1
  window.used[slot] = window.used[slot] + amount
  window.sum = window.sum + amount
end

local function pay(window)
  local paid = math.min(window.debt, window.limit - window.sum)
  if paid > 0 then
    add(window, window.head, paid)
    window.debt = window.debt - paid
  end
end

local function clear(window)
  for slot = 1, SECONDS do
    window.used[slot] = 0
  end
  window.sum = 0
  window.head = second
end

local function advance(window)
  -- Another Redis's clock, far ahead of this one's: nothing would ever leave the window.
  if window.head > second + SECONDS then
    clear(window)
  end
  while window.head < second do
    local behind = second - window.head
    if behind >= SECONDS and window.debt == 0 then
      clear(window)
    elseif behind >= SECONDS and window.sum == window.limit and window.debt >= window.limit then
      local turns = math.min(math.floor(behind / SECONDS), math.floor(window.debt / window.limit))
      window.debt = window.debt - turns * window.limit
      window.head = window.head + turns * SECONDS
    else
      window.head = window.head + 1
      add(window, window.head, -window.used[window.head % SECONDS + 1])
      pay(window)
    end
  end
end

local function open(key, limit)
  local window = {key = key, limit = limit, debt = 0, sum = 0, used = {}}
  local packed = limit > 0 and redis.call('GET', key)
  if packed then
    window.head, window.debt, window.used = unpack(cmsgpack.unpack(packed))
    for slot = 1, SECONDS do
      window.sum = window.sum + window.used[slot]
    end
    advance(window)
  else
    clear(window)
  end
  return window
end

local function close(window)
  if window.limit > 0 then
    local packed = cmsgpack.pack({window.head, window.debt, window.used})
    local seconds = (2 + math.ceil(window.debt / window.limit)) * SECONDS
    redis.call('SET', window.key, packed, 'EX', string.format('%.0f', seconds))
  end
end

local function take(window, amount)
  if window.limit > 0 then
    if window.debt > 0 or amount > window.limit - window.sum then
      return false
    end
    add(window, window.head, amount)
  end
  return true
end

local function correct(window, at, reserved, used)
  if window.limit == 0 then
    return
  end
  if used > reserved then
    window.debt = window.debt + used - reserved
  elseif window.head - at < SECONDS then
    add(window, at, -math.min(reserved - used, window.used[at % SECONDS + 1]))
  end
  pay(window)
end

-- Milliseconds until there is room for an amount; -1: never.
local function free_in(window, amount)
  if amount > window.limit then
    return -1
  end
  local needed, turns, at = window.debt + amount - (window.limit - window.sum), 0, 0
  if needed > window.sum then
    turns = 1 + math.floor((needed - window.sum - 1) / window.limit)
    needed = needed - window.sum - (turns - 1) * window.limit
  end
  while needed > 0 and at < SECONDS do
    at = at + 1
    needed = needed - window.used[(window.head + at) % SECONDS + 1]
  end
  local seconds = turns * SECONDS + at
  return seconds == 0 and 0 or math.ceil((window.head + seconds - now) * 1000)
end

local function standing(window, amount)
  if window.limit == 0 then
    return 0, 0, 0
  end
  return window.sum + window.debt, free_in(window, amount), free_in(window, window.limit)
end

-- Requests of the tenant that the other workers have in flight, those that live.
local function at_others(key)
  local others = 0
  local fields = redis.call('HGETALL', key)
  for at = 1, #fields, 2 do
    if fields[at] ~= me then
      local count, told = string.match(fields[at + 1], '^(%d+):(%d+)$')
      if tonumber(told) < second - LIVE_SECONDS then
        redis.call('HDEL', key, fields[at])
      else
        others = others + tonumber(count)
      end
    end
  end
  return others
end

local function number(at)
  return tonumber(ARGV[at])
end

local max_places, held, asking = number(5), number(6), number(9)
local requests, tokens = open(KEYS[1], number(3)), open(KEYS[2], number(4))
local others = asking > 0 and max_places > 0 and at_others(KEYS[3]) or 0
local answer = {second}

correct(requests, second, 0, number(7))
correct(tokens, second, 0, number(8))
for at = 10 + asking, #ARGV, 3 do
  correct(tokens, number(at), number(at + 1), number(at + 2))
end

local function admit(amount)
  if max_places > 0 and others + held >= max_places then
    return IN_FLIGHT
  elseif not take(requests, 1) then
    return REQUESTS
  elseif not take(tokens, amount) then
    correct(requests, requests.head, 1, 0)
    return TOKENS
  end
  held = held + 1
  return ADMITTED
end

for ask = 1, asking do
  local amount = number(9 + ask)
  local verdict = admit(amount)
  local used, wait, reset = standing(requests, 1)
  local used_tokens, wait_tokens, reset_tokens = standing(tokens, amount)
  for _, value in ipairs({verdict, used, wait, reset, used_tokens, wait_tokens, reset_tokens}) do
    answer[#answer + 1] = value
  end
end

close(requests)
close(tokens)
if max_places > 0 and held > 0 then
  redis.call('HSET', KEYS[3], me, string.format('%.0f:%.0f', held, second))
  redis.call('EXPIRE', KEYS[3], 2 * LIVE_SECONDS)
else
  redis.call('HDEL', KEYS[3], me)
end
return answer
