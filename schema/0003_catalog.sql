-- A copy of the catalog, for people who analyse and for a daemon whose catalog file is lost. The file is the truth.
-- The newest version of a row counts: read with FINAL.

CREATE TABLE IF NOT EXISTS accounts
(
    id UInt32 COMMENT 'The account''s number',
    name String COMMENT 'Its unique name',
    plan LowCardinality(String) COMMENT 'starter, pro or enterprise',
    rate_limit_per_minute Nullable(UInt32) COMMENT 'Hits a minute per postback token; 0: no limit; null: the daemon''s setting',
    deleted Bool COMMENT 'Whether it was removed',
    version UInt64 COMMENT 'Grows with every change of the catalog'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Tenants';

CREATE TABLE IF NOT EXISTS api_keys
(
    id UInt32 COMMENT 'The key''s number',
    account_id UInt32 COMMENT 'Whose it is',
    name String COMMENT 'What it is called',
    sha256 FixedString(32) COMMENT 'The hash of the key; the key itself is kept nowhere',
    created_at DateTime64(3, 'UTC') COMMENT 'When it was made (UTC)',
    revoked Bool COMMENT 'Whether it opens nothing any more',
    deleted Bool COMMENT 'Whether it was removed',
    version UInt64 COMMENT 'Grows with every change of the catalog'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Bearer keys';

CREATE TABLE IF NOT EXISTS goals
(
    id UInt32 COMMENT 'The goal''s number, unique over all accounts',
    account_id UInt32 COMMENT 'Whose it is',
    name String COMMENT 'Shown to people',
    goal_type LowCardinality(String) COMMENT 'purchase, signup, download or custom',
    value Nullable(Decimal(18, 6)) COMMENT 'The value of a conversion that brings none',
    currency LowCardinality(String) COMMENT 'The currency of a conversion that brings none; empty: USD',
    attribution_window_days UInt16 COMMENT 'How old the click that earns a conversion may be',
    postback_url String COMMENT 'Where the owner wants to be told of conversions; empty: nowhere',
    postback_method LowCardinality(String) COMMENT 'How: POST or GET; secrets are not copied',
    trust_client_fields Bool COMMENT 'Whether a hit that only the token vouches for may say who converted, and when',
    postback_token String COMMENT 'Names the goal in postbacks and pixels',
    created_at DateTime64(3, 'UTC') COMMENT 'When it was created (UTC)',
    deleted Bool COMMENT 'Whether it was removed',
    version UInt64 COMMENT 'Grows with every change of the catalog'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Actions worth counting';

CREATE TABLE IF NOT EXISTS links
(
    id UInt32 COMMENT 'The link''s number, unique over all accounts',
    account_id UInt32 COMMENT 'Whose it is',
    name String COMMENT 'Shown to people',
    slug String COMMENT 'Its name in /r/{slug}, unique over all accounts, for ever',
    destination_url String COMMENT 'Where it leads, macros in it',
    variants Array(Tuple(String, UInt16, String)) COMMENT 'What is shown in turn: name, weight, destination; an empty destination: the link''s own',
    append_click_id Bool COMMENT 'Whether click_id is appended to the destination',
    utm_source String COMMENT 'What a visit''s own utm_source leaves open',
    utm_medium String COMMENT 'Likewise',
    utm_campaign String COMMENT 'Likewise',
    utm_term String COMMENT 'Likewise',
    utm_content String COMMENT 'Likewise',
    created_at DateTime64(3, 'UTC') COMMENT 'When it was created (UTC)',
    deleted Bool COMMENT 'Whether it was removed; its slug stays taken',
    version UInt64 COMMENT 'Grows with every change of the catalog'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What visitors click';
