-- Clicks: the raw table, sorted for look-ups by number; the same clicks sorted by visitor; the hourly statistics by link.
--
-- Statistics are kept by values that come from public URLs. Their size stays bounded: the daemon gives each account a
-- certain number of new combinations of link, campaign and variant a day (`labelled`), and all others count as
-- (other). The raw tables keep what came.

CREATE TABLE IF NOT EXISTS clicks
(
    click_id UInt64 COMMENT 'The click''s number: issued (its upper bits are the time) or the caller''s' CODEC(Delta, ZSTD(1)),
    account_id UInt32 COMMENT 'Whose it is',
    link_id UInt32 COMMENT 'The link; 0: a click from elsewhere that names none' CODEC(ZSTD(1)),
    click_key UInt128 COMMENT 'Keyed hash of account and number, where the number is the caller''s; 0: issued' CODEC(ZSTD(1)),
    clicked_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'When the daemon accepted it (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    source Enum8('redirect' = 1, 'api' = 2) COMMENT 'How it was recorded',
    traffic Enum8('human' = 1, 'bot' = 2, 'prefetch' = 3) COMMENT 'Who or what clicked; only humans count in rates',
    utm_source LowCardinality(String) COMMENT 'The site or network',
    utm_medium LowCardinality(String) COMMENT 'The kind of traffic',
    utm_campaign LowCardinality(String) COMMENT 'The campaign',
    utm_term String COMMENT 'The keyword' CODEC(ZSTD(1)),
    utm_content String COMMENT 'Which of several ads' CODEC(ZSTD(1)),
    variant LowCardinality(String) COMMENT 'The A/B variant that was shown; empty: none',
    labelled Bool COMMENT 'Whether statistics name campaign and variant, rather than (other)',
    sub1 String COMMENT 'A free value of the caller' CODEC(ZSTD(1)),
    sub2 String COMMENT 'A free value of the caller' CODEC(ZSTD(1)),
    sub3 String COMMENT 'A free value of the caller' CODEC(ZSTD(1)),
    sub4 String COMMENT 'A free value of the caller' CODEC(ZSTD(1)),
    sub5 String COMMENT 'A free value of the caller' CODEC(ZSTD(1)),
    ip IPv6 COMMENT 'The visitor''s address as privacy lets it be kept (truncated by default); :: is none' CODEC(ZSTD(1)),
    user_agent String COMMENT 'The visitor''s user agent; empty: none' CODEC(ZSTD(1)),
    visitor_key UInt64 COMMENT 'Keyed hash of account, full address and user agent under the key of the epoch of clicked_at; 0: unknown' CODEC(ZSTD(1)),
    private_address Bool COMMENT 'The address is private or shared by a carrier: the click is not matched by it',
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(Delta, ZSTD(1)),
    INDEX clicked_at_range clicked_at TYPE minmax GRANULARITY 8,
    INDEX received_at_range received_at TYPE minmax GRANULARITY 8,
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account_id, click_id)
-- Clicks are accepted as far back as 400 days; a little longer, so that every hour that one may still fall into has all of
-- its rows, and its statistics can be held against them.
TTL toDateTime(received_at) + INTERVAL 402 DAY
SETTINGS index_granularity = 512, non_replicated_deduplication_window = 1000, fsync_after_insert = 1,
    fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Every click, one row each';

CREATE MATERIALIZED VIEW IF NOT EXISTS click_keys_feed TO order_keys
AS SELECT toUInt32(0) AS goal_id, click_key AS order_key, toUUID('00000000-0000-0000-0000-000000000000') AS conversion_id,
    toDecimal64(0, 6) AS value, 'XXX' AS currency, received_at, batch_id
FROM clicks
WHERE click_key != 0;

-- Made for looking up many visitors at a time, which costs a granule each: few columns, small granules, numbers that are
-- not compressed, and the visitor's key first, since it is a hash that holds the account. What a click hands on stands in
-- one column; the others are read out of it.
CREATE TABLE IF NOT EXISTS clicks_by_visitor
(
    account_id UInt32 COMMENT 'Whose it is' CODEC(NONE),
    visitor_key UInt64 COMMENT 'The visitor' CODEC(NONE),
    clicked_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC)' CODEC(NONE),
    received_at DateTime64(3, 'UTC') COMMENT 'When the daemon accepted it (UTC)' CODEC(NONE),
    click_id UInt64 COMMENT 'The click''s number' CODEC(NONE),
    link_id UInt32 COMMENT 'The link; 0: none' CODEC(NONE),
    labels String COMMENT 'Campaign, variant and labelled, one a line; none of them holds a line''s end' CODEC(LZ4),
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(ZSTD(1)),
    utm_source String ALIAS splitByChar('\n', labels)[1] COMMENT 'The site or network',
    utm_medium String ALIAS splitByChar('\n', labels)[2] COMMENT 'The kind of traffic',
    utm_campaign String ALIAS splitByChar('\n', labels)[3] COMMENT 'The campaign',
    utm_term String ALIAS splitByChar('\n', labels)[4] COMMENT 'The keyword',
    utm_content String ALIAS splitByChar('\n', labels)[5] COMMENT 'Which of several ads',
    variant String ALIAS splitByChar('\n', labels)[6] COMMENT 'The A/B variant that was shown; empty: none',
    labelled Bool ALIAS splitByChar('\n', labels)[7] = '1' COMMENT 'Whether statistics name campaign and variant, rather than (other)',
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (visitor_key, clicked_at)
TTL toDateTime(received_at) + INTERVAL 402 DAY
SETTINGS index_granularity = 128, min_compress_block_size = 4096, non_replicated_deduplication_window = 1000,
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Human clicks sorted by visitor, for conversions that name no click; filled by clicks_by_visitor_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_by_visitor_feed TO clicks_by_visitor
AS SELECT account_id, visitor_key, clicked_at, received_at, click_id, link_id,
    concat(utm_source, '\n', utm_medium, '\n', utm_campaign, '\n', utm_term, '\n', utm_content, '\n', variant, '\n',
        toString(toUInt8(labelled))) AS labels,
    batch_id
FROM clicks
WHERE traffic = 'human' AND visitor_key != 0 AND NOT private_address;

CREATE TABLE IF NOT EXISTS clicks_hourly
(
    account_id UInt32 COMMENT 'Whose it is',
    link_id UInt32 COMMENT 'The link; 0: none',
    hour DateTime('UTC') COMMENT 'The start of the hour of the click (UTC)',
    utm_source LowCardinality(String) COMMENT 'The site or network',
    utm_medium LowCardinality(String) COMMENT 'The kind of traffic',
    utm_campaign LowCardinality(String) COMMENT 'The campaign',
    variant LowCardinality(String) COMMENT 'The A/B variant that was shown; empty: none',
    clicks SimpleAggregateFunction(sum, UInt64) COMMENT 'All clicks, robots among them; read with sum()',
    human_clicks SimpleAggregateFunction(sum, UInt64) COMMENT 'Clicks of people: what rates are made of; read with sum()',
    visitors AggregateFunction(uniq, UInt64) COMMENT 'How many people, about, a click of an unknown visitor being one; read with uniqMerge()'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (account_id, link_id, hour, utm_source, utm_medium, utm_campaign, variant)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Clicks by the hour; always read with GROUP BY; filled by clicks_hourly_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_hourly_feed TO clicks_hourly
AS SELECT account_id, link_id, toDateTime(toStartOfHour(clicked_at), 'UTC') AS hour,
    if(labelled, clicks.utm_source, '(other)') AS utm_source, if(labelled, clicks.utm_medium, '(other)') AS utm_medium,
    if(labelled, clicks.utm_campaign, '(other)') AS utm_campaign, if(labelled, clicks.variant, '(other)') AS variant,
    count() AS clicks, countIf(traffic = 'human') AS human_clicks,
    uniqStateIf(if(visitor_key = 0, click_id, visitor_key), traffic = 'human') AS visitors
FROM clicks
GROUP BY account_id, link_id, hour, utm_source, utm_medium, utm_campaign, variant;
