-- Conversions: the raw table, the key table that deduplication asks, and the hourly statistics by goal.
--
-- Every table here can be written exactly once, which takes all of these at the same time (`tally check` reads them
-- back and refuses to run without them):
--   * `non_replicated_deduplication_window` on the source AND on every view's target: a re-sent batch with the same
--     token is dropped in each of them by itself;
--   * the fsync settings: an insert that was answered survives a power cut;
--   * `batch_id` on every raw row: a batch whose outcome is unknown can be looked for.
--
-- One batch is one block in one partition: batches are cut at the border of a month (UTC).

CREATE TABLE IF NOT EXISTS conversions
(
    conversion_id UUID COMMENT 'The conversion''s public id (UUID version 7: its first 48 bits are the time)' CODEC(ZSTD(1)),
    account_id UInt32 COMMENT 'The account that owns the goal',
    goal_id UInt32 COMMENT 'The goal that was completed',
    order_id String COMMENT 'The caller''s order id; empty: none was given' CODEC(ZSTD(1)),
    order_key UInt128 COMMENT 'Keyed hash of goal, scope and order id or idempotency key; 0: never deduplicated' CODEC(NONE),
    key_scope Enum8('none' = 0, 'forever' = 1, 'day' = 2) COMMENT 'How long order_key stays unique: an order id for ever, an Idempotency-Key for 24 hours',
    value Decimal(18, 6) COMMENT 'The value, exact, in units of its currency' CODEC(ZSTD(1)),
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    received_at DateTime64(3, 'UTC') COMMENT 'When the daemon accepted it (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    converted_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC); received_at unless the caller said so' CODEC(DoubleDelta, ZSTD(1)),
    window_seconds UInt32 COMMENT 'The goal''s attribution window when it was accepted' CODEC(ZSTD(1)),
    source Enum8('postback' = 1, 'pixel' = 2, 'api' = 3) COMMENT 'How it was reported',
    click_id UInt64 COMMENT 'The click that the caller named; 0: none' CODEC(ZSTD(1)),
    ip IPv6 COMMENT 'The visitor''s address as privacy lets it be kept (truncated by default; IPv4 as ::ffff:a.b.c.d); :: is none' CODEC(ZSTD(1)),
    user_agent String COMMENT 'The visitor''s user agent; empty: none' CODEC(ZSTD(1)),
    visitor_key UInt64 COMMENT 'Keyed hash of account, full address and user agent under the key of the epoch of converted_at: counts visitors; 0: unknown' CODEC(ZSTD(1)) TTL toDateTime(received_at) + INTERVAL 400 DAY,
    visitor_keys Array(UInt64) COMMENT 'The visitor''s keys of every epoch that the window touches, newest first: where its clicks are looked for' CODEC(ZSTD(1)) TTL toDateTime(received_at) + INTERVAL 400 DAY,
    private_address Bool COMMENT 'The address is private or shared by a carrier: the visitor is not looked for',
    attribution_method Enum8('none' = 0, 'click_id' = 1, 'ip_user_agent' = 2) COMMENT 'How the click that earned it was found when it came',
    attribution_reason Enum8('' = 0, 'click_not_found' = 1, 'outside_window' = 2, 'click_after_conversion' = 3, 'no_candidate' = 4, 'private_address' = 5, 'no_visitor' = 6) COMMENT 'Why no click earned it when it came',
    candidates UInt16 COMMENT 'How many clicks could have earned it when it came' CODEC(ZSTD(1)),
    attribution_run UInt32 COMMENT 'The newest run of attribution when it came' CODEC(ZSTD(1)),
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(Delta, ZSTD(1)),
    INDEX conversion_id_filter conversion_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account_id, goal_id, converted_at, conversion_id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Every conversion that counts, one row each';

CREATE TABLE IF NOT EXISTS order_keys
(
    goal_id UInt32 COMMENT 'The goal',
    order_key UInt128 COMMENT 'Keyed hash of goal, scope and order id or idempotency key' CODEC(NONE),
    conversion_id UUID COMMENT 'The conversion that came first' CODEC(ZSTD(1)),
    value Decimal(18, 6) COMMENT 'Its value: another one in a duplicate is a conflict' CODEC(ZSTD(1)),
    currency LowCardinality(String) COMMENT 'Its currency',
    received_at DateTime64(3, 'UTC') COMMENT 'When it was accepted (UTC): a key of scope day ends 24 hours later' CODEC(ZSTD(1)),
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(ZSTD(1)),
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (goal_id, order_key)
SETTINGS index_granularity = 512, non_replicated_deduplication_window = 1000, fsync_after_insert = 1,
    fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'The keys of conversions, sorted for look-ups; filled by order_keys_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS order_keys_feed TO order_keys
AS SELECT goal_id, order_key, conversion_id, value, currency, received_at, batch_id
FROM conversions
WHERE order_key != 0;

CREATE TABLE IF NOT EXISTS conversions_hourly
(
    account_id UInt32 COMMENT 'The account that owns the goal',
    goal_id UInt32 COMMENT 'The goal that was completed',
    hour DateTime('UTC') COMMENT 'The start of the hour (UTC)',
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    conversions SimpleAggregateFunction(sum, UInt64) COMMENT 'How many; read with sum()',
    value SimpleAggregateFunction(sum, Decimal(38, 6)) COMMENT 'Their value, exact; read with sum()',
    visitors AggregateFunction(uniq, UInt64) COMMENT 'How many visitors, about; read with uniqMerge()'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (account_id, goal_id, hour, currency)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Conversions by the hour; always read with GROUP BY; filled by conversions_hourly_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS conversions_hourly_feed TO conversions_hourly
AS SELECT account_id, goal_id, toDateTime(toStartOfHour(converted_at), 'UTC') AS hour, currency,
    count() AS conversions, sum(value) AS value, uniqStateIf(visitor_key, visitor_key != 0) AS visitors
FROM conversions
GROUP BY account_id, goal_id, hour, currency;
