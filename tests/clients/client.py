"""ClickHouse's Python client, unmodified, against the embedded engine. Arguments: the two URLs."""

import datetime
import sys
import urllib.parse

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError


def connect(url, **more):
    parts = urllib.parse.urlsplit(url)
    database = urllib.parse.parse_qs(parts.query)["database"][0]
    return clickhouse_connect.get_client(
        host=parts.hostname,
        port=parts.port,
        username=parts.username,
        password=parts.password,
        database=database,
        **more,
    )


def refused(action, code=None):
    try:
        action()
    except ClickHouseError as error:
        assert code is None or f"code: {code}." in str(error).lower(), error
        return
    raise AssertionError("it was not refused")


# What dashboards ask: the views, as their users read them.
VIEWS = {
    "SELECT goal_id, currency, sum(conversions), toString(sum(value)), uniqMerge(visitors) "
    "FROM conversions_hourly GROUP BY ALL": (1, "EUR", 1, "12.5", 1),
    "SELECT link_id, utm_campaign, sum(conversions), toString(sum(value)), "
    "quantilesTDigestMerge(0.5, 0.95)(seconds_to_convert_quantiles)[1] "
    "FROM attributed_hourly_current GROUP BY ALL": (3, "winter", 1, "12.5", 60.0),
    "SELECT link_id, toString(sum(net_value_change)) FROM adjustments_hourly_current GROUP BY ALL": (3, "-2"),
    "SELECT link_id, sum(human_clicks) FROM clicks_hourly GROUP BY ALL": (3, 1),
    "SELECT toString(method), click_id FROM attributions_current": ("click_id", 5),
    "SELECT count() FROM conversions": (1,),
    "SELECT id, name, goal_type FROM goals FINAL": (1, "Sales", "purchase"),
}

# What they must not get.
FORBIDDEN = [
    "SELECT postback_token FROM goals",
    "SELECT postback_url FROM goals",
    "SELECT * FROM goals",
    "SELECT * FROM api_keys",
    "SELECT sha256 FROM api_keys",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/a', LineAsString)",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT groupArray(number) FROM numbers(1000000000)",
]


def dashboards(reader_url):
    reader = connect(reader_url)
    for sql, expected in VIEWS.items():
        rows = reader.query(sql).result_rows
        assert rows == [expected], (sql, rows)
    for sql in FORBIDDEN:
        refused(lambda: reader.query(sql))
    for sql in ("TRUNCATE TABLE conversions", "INSERT INTO goals (id) VALUES (9)", "ALTER TABLE goals DELETE WHERE 1"):
        refused(lambda: reader.command(sql))
    # What the reader may set, the client believes that it may set; what it may not, the client refuses by itself.
    for settings in ({"max_execution_time": 10}, {"max_execution_time": 1000, "join_use_nulls": 1, "final": 1}):
        rows = reader.query("SELECT count() FROM conversions", settings=settings).result_rows
        assert rows == [(1,)], (settings, rows)
    for settings in ({"output_format_schema": "x.proto"}, {"allow_ddl": 0}, {"readonly": 0}):
        refused(lambda: reader.query("SELECT 1", settings=settings))
    assert reader.query("SELECT count() FROM conversions").result_rows == [(1,)], "it goes on"
    reader.close()


def main(writer_url, reader_url):
    dashboards(reader_url)
    for compress in (False, "lz4", "zstd", "gzip"):
        client = connect(writer_url, compress=compress)
        assert client.server_version.startswith("26."), client.server_version
        client.command("DROP TABLE IF EXISTS python")
        client.command(
            "CREATE TABLE python (id UInt32, name LowCardinality(String), at DateTime64(3, 'UTC'), "
            "price Nullable(Decimal(18, 4)), tags Array(String), m Map(String, UInt8)) "
            "ENGINE = MergeTree ORDER BY id"
        )
        at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
        rows = [[i, f"name {i % 7}", at, None if i % 3 else i, ["a", "é'\\"], {"k": i % 100}] for i in range(5000)]
        summary = client.insert("python", rows, column_names=["id", "name", "at", "price", "tags", "m"])
        assert summary.written_rows == 5000, summary.summary

        result = client.query(
            "SELECT * FROM python WHERE id < {n:UInt32} ORDER BY id",
            parameters={"n": 3},
            settings={"max_threads": 1},
        )
        assert result.column_names == ("id", "name", "at", "price", "tags", "m")
        first = result.result_rows[0]
        assert (first[0], first[1], first[4], first[5]) == (0, "name 0", ["a", "é'\\"], {"k": 0}), first
        assert len(result.result_rows) == 3
        assert client.query("SELECT * FROM python WHERE 0").result_rows == []
        assert client.command("SELECT count() FROM python") == 5000

        with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
            assert sum(len(block) for block in stream) == 300000

        refused(lambda: client.query("SELECT * FROM nowhere"), 60)
        refused(lambda: client.query("SELECT throwIf(number = 900000) FROM numbers(1000000)"))
        # A session's temporary table lives from one request to the next.
        client.command("CREATE TEMPORARY TABLE session_table (a UInt8)")
        client.command("INSERT INTO session_table VALUES (7)")
        assert client.command("SELECT a FROM session_table") == 7
        raw = client.raw_query("SELECT 1 AS a", fmt="CSVWithNames")
        assert raw == b'"a"\n1\n', raw
        client.raw_insert("python", ["id", "name"], b"7001,raw\n", fmt="CSV")
        assert client.command("SELECT count() FROM python WHERE name = 'raw'") == 1
        client.close()

        reader = connect(reader_url, compress=compress)
        total = reader.query("SELECT count(), sum(id) FROM python", settings={"max_execution_time": 10})
        assert total.result_rows[0][0] == 5001
        refused(lambda: reader.command("INSERT INTO python (id) VALUES (1)"))
        refused(lambda: reader.command("DROP TABLE python"))
        refused(lambda: reader.query("SELECT * FROM file('/etc/passwd', 'LineAsString')"))
        reader.close()

    refused(lambda: connect(writer_url.replace("tally:", "tally:x", 1)))
    assert issubclass(DatabaseError, ClickHouseError)
    print("python client: all good")


main(*sys.argv[1:])
