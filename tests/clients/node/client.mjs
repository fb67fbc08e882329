// ClickHouse's Node client, unmodified, against the embedded engine. Arguments: the two URLs.
import assert from 'node:assert/strict'
import { createClient } from '@clickhouse/client'

const [writerUrl, readerUrl] = process.argv.slice(2)
const connect = (url, compression) => {
  const { origin, username, password, searchParams } = new URL(url)
  return createClient({
    url: origin,
    username,
    password,
    database: searchParams.get('database'),
    compression: { request: compression, response: compression },
  })
}

for (const compression of [false, true]) {
  const client = connect(writerUrl, compression)
  assert.equal((await client.ping()).success, true)
  await client.command({ query: 'DROP TABLE IF EXISTS node' })
  await client.command({
    query: 'CREATE TABLE node (id UInt32, name String, at DateTime) ENGINE = MergeTree ORDER BY id',
    clickhouse_settings: { wait_end_of_query: 1 },
  })
  const values = Array.from({ length: 1000 }, (_, id) => ({ id, name: `it's ${id} é`, at: '2026-01-02 03:04:05' }))
  const inserted = await client.insert({ table: 'node', values, format: 'JSONEachRow' })
  assert.equal(inserted.executed, true)
  assert.equal(inserted.summary.written_rows, '1000')

  const rows = await client.query({
    query: 'SELECT id, name FROM node WHERE id >= {from: UInt32} AND name != {not: String} ORDER BY id',
    query_params: { from: 990, not: "it's 995 é" },
    format: 'JSONEachRow',
    clickhouse_settings: { max_threads: 1 },
  })
  const read = await rows.json()
  assert.deepEqual(read.map((row) => row.id), [990, 991, 992, 993, 994, 996, 997, 998, 999])
  assert.equal(read[0].name, "it's 990 é")

  const json = await client.query({ query: 'SELECT count() AS n FROM node', format: 'JSON' })
  assert.deepEqual((await json.json()).data, [{ n: 1000 }])

  // A stream of more than one block.
  const stream = await client.query({ query: 'SELECT number FROM numbers(200000)', format: 'JSONCompactEachRow' })
  let count = 0
  for await (const chunk of stream.stream()) count += chunk.length
  assert.equal(count, 200000)

  // An error after the first blocks reaches the client as an error.
  const broken = await client.query({
    query: 'SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 10000',
    format: 'JSONEachRow',
  })
  // The text, or that the body has no end, as it is with a ClickHouse server: Node drops what it has not decompressed yet.
  await assert.rejects(async () => {
    for await (const chunk of broken.stream()) assert.ok(chunk.length > 0)
  }, compression ? /throwIf|non-zero|aborted/ : /throwIf|non-zero/)

  await assert.rejects(client.query({ query: 'SELECT * FROM nowhere' }), (error) => error.code === '60')

  // Aborting a query ends it.
  const controller = new AbortController()
  const slow = client.query({ query: 'SELECT sum(sipHash64(number)) FROM numbers(1000000000000)', abort_signal: controller.signal })
  setTimeout(() => controller.abort(), 50)
  await assert.rejects(slow, /abort/i)
  await client.close()
}

const reader = connect(readerUrl, true)
const result = await reader.query({ query: 'SELECT count() AS n FROM node', format: 'JSONEachRow' })
assert.deepEqual(await result.json(), [{ n: 1000 }])
const settings = { max_execution_time: 10, output_format_json_quote_64bit_integers: 1, date_time_output_format: 'iso' }
const limited = await reader.query({ query: 'SELECT count() AS n FROM node', format: 'JSONEachRow', clickhouse_settings: settings })
assert.deepEqual(await limited.json(), [{ n: '1000' }])
await assert.rejects(reader.query({ query: 'SELECT 1', clickhouse_settings: { output_format_schema: 'x.proto' } }), /output_format_schema/)
await assert.rejects(reader.command({ query: 'DROP TABLE node' }))

// What dashboards ask, and what they must not get.
const views = [
  ["SELECT currency, toUInt32(sum(conversions)) AS n, toString(sum(value)) AS value FROM conversions_hourly GROUP BY ALL", { currency: 'EUR', n: 1, value: '12.5' }],
  ["SELECT utm_campaign, toUInt32(sum(conversions)) AS n FROM attributed_hourly_current GROUP BY ALL", { utm_campaign: 'winter', n: 1 }],
  ["SELECT toString(sum(net_value_change)) AS change FROM adjustments_hourly_current", { change: '-2' }],
  ["SELECT link_id, toUInt32(sum(human_clicks)) AS n FROM clicks_hourly GROUP BY ALL", { link_id: 3, n: 1 }],
]
for (const [query, expected] of views) {
  const answer = await reader.query({ query, format: 'JSONEachRow' })
  assert.deepEqual(await answer.json(), [expected], query)
}
for (const query of [
  'SELECT postback_token FROM goals',
  'SELECT * FROM api_keys',
  "SELECT * FROM file('/etc/passwd', 'LineAsString')",
  "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
  "SELECT * FROM s3('http://127.0.0.1:1/bucket/a', LineAsString)",
  "SELECT * FROM remote('127.0.0.1:1', system.one)",
]) {
  await assert.rejects(reader.query({ query, format: 'JSONEachRow' }).then((answer) => answer.text()), query)
}
await reader.close()
console.log('node client: all good')
