-- Retention by the daemon. A time to live goes by the server's clock, and a clock that is far ahead for a few seconds made
-- ClickHouse delete acknowledged rows. From here on no table deletes by itself: the daemon does, by a clock that it checks
-- first, and records here how far.

CREATE TABLE IF NOT EXISTS retention
(
    table_name LowCardinality(String) COMMENT 'The table that rows were removed from',
    removed_before DateTime64(3, 'UTC') COMMENT 'Rows received before this instant may be gone, later ones are not',
    recorded_at DateTime('UTC') DEFAULT now() COMMENT 'When it was recorded, by the server''s clock (UTC); for people'
)
ENGINE = ReplacingMergeTree(removed_before)
ORDER BY table_name
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'How far old rows were removed; always read with max()';

-- What the time to live may have taken so far: by the newest click, should the server's clock be ahead right now.
INSERT INTO retention (table_name, removed_before)
SELECT name, least(now64(3, 'UTC'), (SELECT max(received_at) FROM clicks)) - toIntervalDay(toUInt32(extract(engine_full, 'toIntervalDay\\((\\d+)\\)')) - 1)
FROM system.tables
WHERE database = currentDatabase() AND name IN ('clicks', 'clicks_by_visitor') AND engine_full LIKE '%toIntervalDay(%';

-- Each is set before it is removed, so that a migration that stopped half-way can be repeated. Nothing is rewritten.
ALTER TABLE clicks MODIFY TTL toDateTime(received_at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE clicks REMOVE TTL;
ALTER TABLE clicks_by_visitor MODIFY TTL toDateTime(received_at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE clicks_by_visitor REMOVE TTL;
ALTER TABLE rejections MODIFY TTL toDateTime(received_at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE rejections REMOVE TTL;
ALTER TABLE deliveries MODIFY TTL toDateTime(at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE deliveries REMOVE TTL;
ALTER TABLE conversions MODIFY COLUMN visitor_key UInt64 TTL toDateTime(received_at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE conversions MODIFY COLUMN visitor_key REMOVE TTL;
ALTER TABLE conversions MODIFY COLUMN visitor_keys Array(UInt64) TTL toDateTime(received_at) + INTERVAL 4000 DAY SETTINGS materialize_ttl_after_modify = 0;
ALTER TABLE conversions MODIFY COLUMN visitor_keys REMOVE TTL;
