-- Which click earned which conversion, decision by decision and by the hour; and what was adjusted afterwards.
--
-- Run 0 holds the decisions as conversions came in. A later run holds decisions over history by other rules (`tally
-- reattribute`); the run that is marked current in `attribution_runs` is in force, and a decision of run 0 beside it
-- where the conversion is older than the run reaches back to, or came after the run (`attribution_run`). The views whose
-- names end in `_current` say just that.
--
-- Who converted is told by the click where the conversion named one: that is reported by servers, whose address is not
-- the visitor's. Click numbers and visitors' keys stand in one set: a key is a hash of 64 bits, a number has 53.

CREATE TABLE IF NOT EXISTS attributions
(
    run_id UInt32 COMMENT 'The run that decided; 0: when the conversion came' CODEC(ZSTD(1)),
    attribution_run UInt32 COMMENT 'For run 0: the newest run at that time' CODEC(ZSTD(1)),
    account_id UInt32 COMMENT 'The account that owns the goal',
    goal_id UInt32 COMMENT 'The goal that was completed',
    conversion_id UUID COMMENT 'The conversion' CODEC(ZSTD(1)),
    converted_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'When the daemon accepted it (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    value Decimal(18, 6) COMMENT 'Its value, exact, in units of its currency' CODEC(ZSTD(1)),
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    visitor_key UInt64 COMMENT 'The visitor; 0: unknown' CODEC(ZSTD(1)),
    candidates UInt16 COMMENT 'How many clicks could have earned it' CODEC(ZSTD(1)),
    batch_id UInt64 COMMENT 'The batch that brought the row; 0: a later run' CODEC(Delta, ZSTD(1)),
    method Enum8('none' = 0, 'click_id' = 1, 'ip_user_agent' = 2) COMMENT 'How the click was found',
    click_id UInt64 COMMENT 'The click; 0: none' CODEC(ZSTD(1)),
    link_id UInt32 COMMENT 'Its link; 0: none' CODEC(ZSTD(1)),
    clicked_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    seconds_to_convert UInt32 COMMENT 'Whole seconds from the click to the conversion' CODEC(ZSTD(1)),
    utm_source LowCardinality(String) COMMENT 'The click''s',
    utm_medium LowCardinality(String) COMMENT 'The click''s',
    utm_campaign LowCardinality(String) COMMENT 'The click''s',
    utm_term LowCardinality(String) COMMENT 'The click''s',
    utm_content LowCardinality(String) COMMENT 'The click''s',
    variant LowCardinality(String) COMMENT 'The A/B variant that the visitor was shown; empty: none',
    labelled Bool COMMENT 'Whether statistics name campaign and variant, rather than (other)',
    INDEX conversion_id_filter conversion_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (run_id, account_id, link_id, converted_at, conversion_id)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'What attributed conversions owe to their clicks, one row each and run';

CREATE TABLE IF NOT EXISTS attributed_hourly
(
    run_id UInt32 COMMENT 'The run that decided; 0: when the conversion came',
    attribution_run UInt32 COMMENT 'For run 0: the newest run at that time',
    account_id UInt32 COMMENT 'The account that owns the goal',
    link_id UInt32 COMMENT 'The link; 0: a click from elsewhere that named none',
    goal_id UInt32 COMMENT 'The goal that was completed',
    hour DateTime('UTC') COMMENT 'The start of the hour of the conversion (UTC)',
    utm_source LowCardinality(String) COMMENT 'The click''s',
    utm_medium LowCardinality(String) COMMENT 'The click''s',
    utm_campaign LowCardinality(String) COMMENT 'The click''s',
    variant LowCardinality(String) COMMENT 'The A/B variant that the visitor was shown; empty: none',
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    conversions SimpleAggregateFunction(sum, UInt64) COMMENT 'How many; read with sum()',
    by_click_id SimpleAggregateFunction(sum, UInt64) COMMENT 'Of those: by a click that was named; read with sum()',
    by_ip_user_agent SimpleAggregateFunction(sum, UInt64) COMMENT 'Of those: by address and user agent; read with sum()',
    value SimpleAggregateFunction(sum, Decimal(38, 6)) COMMENT 'Their value, exact; read with sum()',
    seconds_to_convert SimpleAggregateFunction(sum, UInt64) COMMENT 'From click to conversion, all together; read with sum()',
    seconds_to_convert_quantiles AggregateFunction(quantilesTDigest(0.5, 0.95), UInt32) COMMENT 'The same as a distribution; read with quantilesTDigestMerge(0.5, 0.95)()',
    visitors AggregateFunction(uniq, UInt64) COMMENT 'How many visitors, about, by click where it was named; read with uniqMerge()'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (run_id, account_id, link_id, goal_id, hour, utm_source, utm_medium, utm_campaign, variant, currency, attribution_run)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Attributed conversions by the hour; always read with GROUP BY; filled by attributed_hourly_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS attributed_hourly_feed TO attributed_hourly
AS SELECT run_id, attribution_run, account_id, link_id, goal_id, toDateTime(toStartOfHour(converted_at), 'UTC') AS hour,
    if(labelled, attributions.utm_source, '(other)') AS utm_source,
    if(labelled, attributions.utm_medium, '(other)') AS utm_medium,
    if(labelled, attributions.utm_campaign, '(other)') AS utm_campaign,
    if(labelled, attributions.variant, '(other)') AS variant, currency,
    count() AS conversions, countIf(method = 'click_id') AS by_click_id,
    countIf(method = 'ip_user_agent') AS by_ip_user_agent, sum(value) AS value,
    sum(attributions.seconds_to_convert) AS seconds_to_convert,
    quantilesTDigestState(0.5, 0.95)(attributions.seconds_to_convert) AS seconds_to_convert_quantiles,
    uniqState(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key)) AS visitors
FROM attributions
GROUP BY run_id, attribution_run, account_id, link_id, goal_id, hour, utm_source, utm_medium, utm_campaign, variant, currency;

-- The same by the hour of the click. A run reaches back to an hour of conversions, which an hour of clicks does not tell:
-- the day of the conversion stands beside it.
CREATE TABLE IF NOT EXISTS attributed_by_click_hourly
(
    run_id UInt32 COMMENT 'The run that decided; 0: when the conversion came',
    attribution_run UInt32 COMMENT 'For run 0: the newest run at that time',
    account_id UInt32 COMMENT 'The account that owns the goal',
    link_id UInt32 COMMENT 'The link; 0: a click from elsewhere that named none',
    goal_id UInt32 COMMENT 'The goal that was completed',
    hour DateTime('UTC') COMMENT 'The start of the hour of the click (UTC)',
    converted_on Date COMMENT 'The day of the conversion (UTC)',
    utm_source LowCardinality(String) COMMENT 'The click''s',
    utm_medium LowCardinality(String) COMMENT 'The click''s',
    utm_campaign LowCardinality(String) COMMENT 'The click''s',
    variant LowCardinality(String) COMMENT 'The A/B variant that the visitor was shown; empty: none',
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    conversions SimpleAggregateFunction(sum, UInt64) COMMENT 'How many; read with sum()',
    value SimpleAggregateFunction(sum, Decimal(38, 6)) COMMENT 'Their value, exact; read with sum()',
    seconds_to_convert SimpleAggregateFunction(sum, UInt64) COMMENT 'From click to conversion, all together; read with sum()',
    seconds_to_convert_quantiles AggregateFunction(quantilesTDigest(0.5, 0.95), UInt32) COMMENT 'The same as a distribution; read with quantilesTDigestMerge(0.5, 0.95)()',
    visitors AggregateFunction(uniq, UInt64) COMMENT 'How many visitors, about, by click where it was named; read with uniqMerge()'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (run_id, account_id, link_id, goal_id, hour, converted_on, utm_source, utm_medium, utm_campaign, variant, currency, attribution_run)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Attributed conversions by the hour of their click; always read with GROUP BY; filled by attributed_by_click_hourly_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS attributed_by_click_hourly_feed TO attributed_by_click_hourly
AS SELECT run_id, attribution_run, account_id, link_id, goal_id, toDateTime(toStartOfHour(clicked_at), 'UTC') AS hour,
    toDate(converted_at) AS converted_on,
    if(labelled, attributions.utm_source, '(other)') AS utm_source,
    if(labelled, attributions.utm_medium, '(other)') AS utm_medium,
    if(labelled, attributions.utm_campaign, '(other)') AS utm_campaign,
    if(labelled, attributions.variant, '(other)') AS variant, currency,
    count() AS conversions, sum(value) AS value, sum(attributions.seconds_to_convert) AS seconds_to_convert,
    quantilesTDigestState(0.5, 0.95)(attributions.seconds_to_convert) AS seconds_to_convert_quantiles,
    uniqState(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key)) AS visitors
FROM attributions
GROUP BY run_id, attribution_run, account_id, link_id, goal_id, hour, converted_on, utm_source, utm_medium, utm_campaign,
    variant, currency;

CREATE TABLE IF NOT EXISTS adjustments
(
    adjustment_id UUID COMMENT 'The adjustment''s public id (UUID version 7)' CODEC(ZSTD(1)),
    account_id UInt32 COMMENT 'The account that owns the goal',
    goal_id UInt32 COMMENT 'The conversion''s goal',
    conversion_id UUID COMMENT 'The conversion' CODEC(ZSTD(1)),
    adjustment_key UInt128 COMMENT 'Keyed hash of account and Idempotency-Key; 0: none' CODEC(ZSTD(1)),
    kind Enum8('refund' = 1, 'correction' = 2, 'approve' = 3, 'reject' = 4) COMMENT 'What it does',
    value Nullable(Decimal(18, 6)) COMMENT 'How much, for refunds and corrections' CODEC(ZSTD(1)),
    currency LowCardinality(String) COMMENT 'The conversion''s',
    reason String COMMENT 'The caller''s words' CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'When the daemon accepted it (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    converted_at DateTime64(3, 'UTC') COMMENT 'When the conversion happened (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    net_value_change Decimal(18, 6) COMMENT 'By how much the net value changes, exact' CODEC(ZSTD(1)),
    net_conversions_change Int8 COMMENT 'By how many the net number of conversions changes',
    attribution_run UInt32 COMMENT 'The newest run of attribution when it came' CODEC(ZSTD(1)),
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(Delta, ZSTD(1)),
    method Enum8('none' = 0, 'click_id' = 1, 'ip_user_agent' = 2) COMMENT 'How the click was found',
    click_id UInt64 COMMENT 'The click; 0: none' CODEC(ZSTD(1)),
    link_id UInt32 COMMENT 'Its link; 0: none' CODEC(ZSTD(1)),
    clicked_at DateTime64(3, 'UTC') COMMENT 'When it happened (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    seconds_to_convert UInt32 COMMENT 'Whole seconds from the click to the conversion' CODEC(ZSTD(1)),
    utm_source LowCardinality(String) COMMENT 'The click''s',
    utm_medium LowCardinality(String) COMMENT 'The click''s',
    utm_campaign LowCardinality(String) COMMENT 'The click''s',
    utm_term LowCardinality(String) COMMENT 'The click''s',
    utm_content LowCardinality(String) COMMENT 'The click''s',
    variant LowCardinality(String) COMMENT 'The A/B variant that the visitor was shown; empty: none',
    labelled Bool COMMENT 'Whether statistics name campaign and variant, rather than (other)',
    INDEX converted_at_range converted_at TYPE minmax GRANULARITY 1,
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account_id, conversion_id, received_at)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'What was learned about conversions after they were counted: refunds, corrections, approvals, rejections';

CREATE MATERIALIZED VIEW IF NOT EXISTS adjustment_keys_feed TO order_keys
AS SELECT toUInt32(0) AS goal_id, adjustment_key AS order_key, adjustment_id AS conversion_id,
    toDecimal64(0, 6) AS value, 'XXX' AS currency, received_at, batch_id
FROM adjustments
WHERE adjustment_key != 0;

CREATE TABLE IF NOT EXISTS adjustments_hourly
(
    account_id UInt32 COMMENT 'The account that owns the goal',
    link_id UInt32 COMMENT 'The link of the click that earned the conversion; 0: none',
    goal_id UInt32 COMMENT 'The goal',
    hour DateTime('UTC') COMMENT 'The start of the hour of the conversion (UTC)',
    method Enum8('none' = 0, 'click_id' = 1, 'ip_user_agent' = 2) COMMENT 'How the click was found',
    utm_source LowCardinality(String) COMMENT 'The click''s',
    utm_medium LowCardinality(String) COMMENT 'The click''s',
    utm_campaign LowCardinality(String) COMMENT 'The click''s',
    variant LowCardinality(String) COMMENT 'The A/B variant that the visitor was shown; empty: none',
    currency LowCardinality(String) COMMENT 'ISO 4217; never add amounts of different currencies',
    adjustments SimpleAggregateFunction(sum, UInt64) COMMENT 'How many; read with sum()',
    net_value_change SimpleAggregateFunction(sum, Decimal(38, 6)) COMMENT 'Add to the gross value for the net one; read with sum()',
    net_conversions_change SimpleAggregateFunction(sum, Int64) COMMENT 'Add to the gross number for the net one; read with sum()'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (account_id, link_id, goal_id, hour, method, utm_source, utm_medium, utm_campaign, variant, currency)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'What adjustments change, by the hour of the conversion; always read with GROUP BY; filled by adjustments_hourly_feed';

CREATE MATERIALIZED VIEW IF NOT EXISTS adjustments_hourly_feed TO adjustments_hourly
AS SELECT account_id, link_id, goal_id, toDateTime(toStartOfHour(converted_at), 'UTC') AS hour, method,
    if(labelled OR method = 'none', adjustments.utm_source, '(other)') AS utm_source,
    if(labelled OR method = 'none', adjustments.utm_medium, '(other)') AS utm_medium,
    if(labelled OR method = 'none', adjustments.utm_campaign, '(other)') AS utm_campaign,
    if(labelled OR method = 'none', adjustments.variant, '(other)') AS variant, currency,
    count() AS adjustments, sum(adjustments.net_value_change) AS net_value_change,
    sum(toInt64(adjustments.net_conversions_change)) AS net_conversions_change
FROM adjustments
GROUP BY account_id, link_id, goal_id, hour, method, utm_source, utm_medium, utm_campaign, variant, currency;

CREATE TABLE IF NOT EXISTS attribution_runs
(
    run_id UInt32 COMMENT 'The run''s number, from 1',
    since DateTime64(3, 'UTC') COMMENT 'Conversions from then on were decided anew',
    window_seconds UInt32 COMMENT 'The attribution window that it used',
    model LowCardinality(String) COMMENT 'last or first: which of several clicks wins',
    state LowCardinality(String) COMMENT 'running, done or failed',
    current Bool COMMENT 'Whether it is in force',
    started_at DateTime64(3, 'UTC') COMMENT 'When it was started (UTC)',
    version UInt64 COMMENT 'Grows with every change of the row'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY run_id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Runs of attribution over history; read with FINAL';

CREATE VIEW IF NOT EXISTS attribution_in_force
AS SELECT max(run_id) AS run_id, max(since) AS since FROM attribution_runs FINAL WHERE current AND state = 'done';

CREATE VIEW IF NOT EXISTS attributions_current
AS SELECT * FROM attributions
WHERE run_id = (SELECT run_id FROM attribution_in_force)
    OR (run_id = 0 AND (converted_at < (SELECT since FROM attribution_in_force)
        OR attribution_run >= (SELECT run_id FROM attribution_in_force)));

CREATE VIEW IF NOT EXISTS attributed_hourly_current
AS SELECT * FROM attributed_hourly
WHERE run_id = (SELECT run_id FROM attribution_in_force)
    OR (run_id = 0 AND (hour < (SELECT since FROM attribution_in_force)
        OR attribution_run >= (SELECT run_id FROM attribution_in_force)));

-- Of the day in which the run begins, what came before that hour is counted anew.
CREATE VIEW IF NOT EXISTS attributed_by_click_hourly_current
AS SELECT * FROM attributed_by_click_hourly
WHERE run_id = (SELECT run_id FROM attribution_in_force)
    OR (run_id = 0 AND (converted_on < toDate((SELECT since FROM attribution_in_force))
        OR attribution_run >= (SELECT run_id FROM attribution_in_force)))
UNION ALL
SELECT run_id, attribution_run, account_id, link_id, goal_id, toDateTime(toStartOfHour(clicked_at), 'UTC') AS hour,
    toDate(converted_at) AS converted_on,
    if(labelled, attributions.utm_source, '(other)') AS utm_source,
    if(labelled, attributions.utm_medium, '(other)') AS utm_medium,
    if(labelled, attributions.utm_campaign, '(other)') AS utm_campaign,
    if(labelled, attributions.variant, '(other)') AS variant, currency,
    count() AS conversions, sum(value) AS value, sum(attributions.seconds_to_convert) AS seconds_to_convert,
    quantilesTDigestState(0.5, 0.95)(attributions.seconds_to_convert) AS seconds_to_convert_quantiles,
    uniqState(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key)) AS visitors
FROM attributions
WHERE run_id = 0 AND attribution_run < (SELECT run_id FROM attribution_in_force)
    AND converted_at >= toStartOfDay((SELECT since FROM attribution_in_force))
    AND converted_at < (SELECT since FROM attribution_in_force)
GROUP BY run_id, attribution_run, account_id, link_id, goal_id, hour, converted_on, utm_source, utm_medium, utm_campaign,
    variant, currency;

-- Adjustments carry the click that earned their conversion when it came, and so do their hourly statistics. While a later
-- run is in force these views say the same by that run, adjustment by adjustment: those are few, so it is a join at query
-- time. Sums over all links are the same in both.
CREATE VIEW IF NOT EXISTS adjustments_current
AS SELECT adjusted.account_id AS account_id, adjusted.goal_id AS goal_id, adjusted.converted_at AS converted_at,
    adjusted.currency AS currency, adjusted.net_value_change AS net_value_change,
    adjusted.net_conversions_change AS net_conversions_change, earned.method AS method, earned.link_id AS link_id,
    earned.clicked_at AS clicked_at, earned.utm_source AS utm_source, earned.utm_medium AS utm_medium,
    earned.utm_campaign AS utm_campaign, earned.variant AS variant, earned.labelled AS labelled
FROM adjustments AS adjusted
LEFT ANY JOIN
(
    SELECT conversion_id, account_id, method, link_id, clicked_at, utm_source, utm_medium, utm_campaign, variant, labelled
    FROM attributions_current WHERE conversion_id IN (SELECT conversion_id FROM adjustments)
) AS earned ON earned.account_id = adjusted.account_id AND earned.conversion_id = adjusted.conversion_id;

CREATE VIEW IF NOT EXISTS adjustments_hourly_current
AS SELECT account_id, link_id, goal_id, toDateTime(toStartOfHour(converted_at), 'UTC') AS hour, method,
    if(labelled OR method = 'none', adjustments_current.utm_source, '(other)') AS utm_source,
    if(labelled OR method = 'none', adjustments_current.utm_medium, '(other)') AS utm_medium,
    if(labelled OR method = 'none', adjustments_current.utm_campaign, '(other)') AS utm_campaign,
    if(labelled OR method = 'none', adjustments_current.variant, '(other)') AS variant, currency,
    count() AS adjustments, sum(adjustments_current.net_value_change) AS net_value_change,
    sum(toInt64(adjustments_current.net_conversions_change)) AS net_conversions_change
FROM adjustments_current
GROUP BY account_id, link_id, goal_id, hour, method, utm_source, utm_medium, utm_campaign, variant, currency;
