-- Hits of known goals that were not counted: refused, or duplicates. For whoever asks why nothing arrived.

CREATE TABLE IF NOT EXISTS rejections
(
    account_id UInt32 COMMENT 'The account that owns the goal',
    goal_id UInt32 COMMENT 'The goal that the token names',
    received_at DateTime64(3, 'UTC') COMMENT 'When it came (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    code LowCardinality(String) COMMENT 'The error''s stable code, or duplicate',
    field LowCardinality(String) COMMENT 'The field at fault; empty: none',
    message String COMMENT 'A plain sentence' CODEC(ZSTD(1)),
    order_id String COMMENT 'The order id, where one could be read' CODEC(ZSTD(1)),
    conversion_id UUID COMMENT 'The id that a late duplicate was given when it was accepted (202); nil for all others' CODEC(ZSTD(1)),
    original_id UUID COMMENT 'For a duplicate: the conversion that counted; nil: not known' CODEC(ZSTD(1)),
    source Enum8('postback' = 1, 'pixel' = 2, 'api' = 3) COMMENT 'How it was reported',
    request String COMMENT 'What came: query or body, cut to 1,024 bytes' CODEC(ZSTD(1)),
    batch_id UInt64 COMMENT 'The batch that brought the row; for audits' CODEC(Delta, ZSTD(1)),
    INDEX conversion_id_filter conversion_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX batch_id_range batch_id TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account_id, received_at)
-- A late duplicate was acknowledged with an id of its own: it is accounted for as long as the conversions are.
TTL toDateTime(received_at) + INTERVAL 90 DAY DELETE WHERE conversion_id = toUUID('00000000-0000-0000-0000-000000000000')
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, old_parts_lifetime = 480
COMMENT 'Hits that were not counted, and why; refused ones are kept for 90 days';
