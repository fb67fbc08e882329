-- Attempts to tell goals' owners of conversions. A row may be sent again after a failure: of rows with one id one counts,
-- so no token is needed. Read with FINAL.

CREATE TABLE IF NOT EXISTS deliveries
(
    account_id UInt32 COMMENT 'The account that owns the goal',
    conversion_id UUID COMMENT 'The conversion; webhook-id is msg_ and this' CODEC(ZSTD(1)),
    id UUID COMMENT 'The attempt''s public id (UUID version 7)' CODEC(ZSTD(1)),
    goal_id UInt32 COMMENT 'The goal' CODEC(ZSTD(1)),
    attempt UInt8 COMMENT 'Which attempt, from 1; a replay counts anew',
    status Nullable(UInt16) COMMENT 'What was answered; NULL: no answer came',
    error LowCardinality(String) COMMENT 'Why no answer came or why it does not count; empty: nothing went wrong',
    latency_ms UInt32 COMMENT 'How long the attempt took' CODEC(ZSTD(1)),
    at DateTime64(3, 'UTC') COMMENT 'When it began (UTC)' CODEC(DoubleDelta, ZSTD(1)),
    next_attempt_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the next one is due; NULL: there is none' CODEC(ZSTD(1)),
    answer String COMMENT 'The first KB of the answer''s body, as text' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (account_id, conversion_id, id)
TTL toDateTime(at) + INTERVAL 90 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Attempts to tell goals'' owners of conversions, one row each; kept for 90 days';
