//! What a query does not read.

use crate::world::{SECOND_NS, START_NS, World};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tidemill_types::{SegmentMeta, Signal};

const HOURS: i64 = 4;
const ROWS_AN_HOUR: i64 = 150_000;
const SERVICES: i64 = 20;

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) })
}

/// Spreads a number over 64 bits (splitmix64).
fn mix(number: i64) -> u64 {
    let mut mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn record(number: i64) -> LogRecord {
    let trace = [mix(number).to_be_bytes(), mix(-number).to_be_bytes()].concat();
    LogRecord {
        time_unix_nano: (START_NS + number * HOURS * 3_600 * SECOND_NS / (HOURS * ROWS_AN_HOUR)) as u64,
        attributes: vec![KeyValue {
            key: "request.id".to_owned(),
            value: text(&format!("{:016x}{:016x}", mix(number ^ 7), mix(number ^ 11))),
            ..KeyValue::default()
        }],
        severity_number: if number % 50 == 0 { 17 } else { 9 },
        severity_text: if number % 50 == 0 { "ERROR" } else { "INFO" }.to_owned(),
        body: text(&format!("request {:016x} of user {} took {} ms", mix(number), mix(number) % 5_000, number % 977)),
        span_id: mix(number.wrapping_mul(31)).to_be_bytes().to_vec(),
        trace_id: trace,
        ..LogRecord::default()
    }
}

fn request(hour: i64) -> ExportLogsServiceRequest {
    let resource_logs = (0..SERVICES).map(|service| {
        let numbers = (hour * ROWS_AN_HOUR..(hour + 1) * ROWS_AN_HOUR).filter(|number| number % SERVICES == service);
        let name = KeyValue {
            key: "service.name".to_owned(),
            value: text(&format!("service-{service}")),
            ..KeyValue::default()
        };
        ResourceLogs {
            resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: numbers.map(record).collect(), ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

/// Four closed hours, each one indexed segment.
async fn closed_hours() -> (World, Vec<SegmentMeta>) {
    let mut world = World::new().await;
    let mut closed = Vec::new();
    for hour in 0..HOURS {
        let bytes = request(hour).encode_to_vec();
        let metas =
            world.ingest_protobuf(world.organization, Signal::Logs, &bytes, START_NS + 86_400 * SECOND_NS).await;
        closed.extend(world.compact(&metas, 2).await);
    }
    assert_eq!(closed.len() as i64, HOURS);
    (world, closed)
}

#[tokio::test]
async fn queries_read_little() {
    let (mut world, closed) = closed_hours().await;
    few_rows_read_little(&world, &closed).await;
    // The closed day is one segment; a block of 4096 rows, the least that is read, is a small part only of a large one.
    let day = world.compact(&closed, 2).await;
    needles_read_little(&world, &day).await;
}

async fn needles_read_little(world: &World, segments: &[SegmentMeta]) {
    let total: u64 = segments.iter().map(|meta| meta.bytes).sum();
    let share = |bytes: u64| bytes as f64 / total as f64;

    // A needle, by its token, as a substring, and between words that are cut.
    let needle = format!("{:016x}", mix(100_003));
    for condition in [
        format!("has_token(body, '{needle}')"),
        format!("body LIKE '%{needle}%'"),
        format!("body LIKE '%est {needle} of us%'"),
    ] {
        let world = world.cold();
        let (rows, stats) = world.sql(&format!("SELECT time, body FROM logs WHERE {condition}")).await;
        assert_eq!(rows.len(), 1, "{condition}");
        assert!(share(stats.bytes_read) <= 0.02, "{condition}: {:.4} of the bytes, {stats:?}", share(stats.bytes_read));
    }
    // It is the index that makes it so.
    let statement = format!("SELECT time, body FROM logs WHERE body LIKE '%{needle}%'");
    let (rows, stats) = world.without_indexes().sql(&statement).await;
    assert_eq!(rows.len(), 1);
    assert!(share(stats.bytes_read) >= 0.2, "without: {:.4} of the bytes, {stats:?}", share(stats.bytes_read));
    // A piece of an identifier, shorter than 16 hex digits, prunes nothing here (docs/segment-indexes.md): it is read, and found.
    let (rows, _) =
        world.cold().sql(&format!("SELECT body FROM logs WHERE body LIKE '%request {}%'", &needle[..12])).await;
    assert_eq!(rows.len(), 1);
    let trace: String = [mix(100_003), mix(-100_003)].map(|half| format!("{half:016x}")).concat();
    let cold = world.cold();
    let (rows, stats) = cold.sql(&format!("SELECT body FROM logs WHERE trace_id = '{trace}'")).await;
    assert_eq!(rows.len(), 1);
    assert!(share(stats.bytes_read) <= 0.02, "a trace: {:.4} of the bytes, {stats:?}", share(stats.bytes_read));
}

async fn few_rows_read_little(world: &World, segments: &[SegmentMeta]) {
    let total: u64 = segments.iter().map(|meta| meta.bytes).sum();
    let share = |bytes: u64| bytes as f64 / total as f64;

    // One service for one hour.
    let cold = world.cold();
    let (rows, stats) = cold
        .sql(
            "SELECT body FROM logs WHERE service_name = 'service-7' AND time >= '2024-05-01T02:00:00Z' \
             AND time < '2024-05-01T03:00:00Z'",
        )
        .await;
    assert_eq!(rows.len() as i64, ROWS_AN_HOUR / SERVICES);
    assert!(share(stats.bytes_read) <= 0.05, "one service: {:.4} of the bytes, {stats:?}", share(stats.bytes_read));
    assert_eq!(stats.segments_pruned as i64, HOURS - 1);

    let statement = "SELECT body FROM logs WHERE service_name = 'service-7' AND time >= '2024-05-01T03:00:00Z'";
    let (with, without) = (world.cold().sql(statement).await.1, world.without_indexes().sql(statement).await.1);
    assert!(with.rows_scanned * 4 < without.rows_scanned, "the hour is found without: {with:?} {without:?}");

    // Errors stand together, whatever they say: 2 % of the rows are read, and the blocks that they share with others.
    let cold = world.cold();
    let (rows, stats) = cold.sql("SELECT body FROM logs WHERE severity_text = 'ERROR'").await;
    assert_eq!(rows.len() as i64, HOURS * ROWS_AN_HOUR / 50);
    assert!(stats.rows_scanned as i64 <= HOURS * ROWS_AN_HOUR / 5, "{stats:?}");

    // By their number the footers tell which rows they are.
    let (rows, stats) = world.cold().sql("SELECT body FROM logs WHERE severity_number >= 17").await;
    assert_eq!(rows.len() as i64, HOURS * ROWS_AN_HOUR / 50);
    assert_eq!(stats.rows_scanned as i64, HOURS * ROWS_AN_HOUR / 50, "{stats:?}");

    // A service that does not occur is known from the catalog alone.
    let (rows, stats) = world.cold().sql("SELECT body FROM logs WHERE service_name = 'nobody'").await;
    assert_eq!((rows.len(), stats.requests), (0, 0));

    // The newest rows.
    let cold = world.cold();
    let (rows, stats) =
        cold.sql("SELECT time, CAST(time AS BIGINT) AS at FROM logs ORDER BY time DESC LIMIT 100").await;
    assert_eq!(rows.len(), 100);
    assert!(rows[0][0].starts_with("2024-05-01T03:59:59"), "{:?}", rows[0]);
    let times: Vec<i64> = rows.iter().map(|row| row[1].parse().expect("nanoseconds")).collect();
    assert!(times.is_sorted_by(|one, other| one >= other));
    assert!(stats.row_groups_read <= 3, "{stats:?}");
    let (oldest, stats) = world.cold().sql("SELECT time, body FROM logs ORDER BY time LIMIT 100").await;
    assert_eq!(oldest[0][0], "2024-05-01T00:00:00Z");
    assert!(stats.row_groups_read <= 3, "{stats:?}");
    let (rows, stats) = world.cold().sql("SELECT body FROM logs LIMIT 10").await;
    assert_eq!(rows.len(), 10);
    assert!(stats.row_groups_read <= 2, "{stats:?}");

    // Counting everything reads nothing.
    let (rows, stats) = world.cold().sql("SELECT count(*) FROM logs").await;
    assert_eq!((rows[0][0].clone(), stats.bytes_read), ((HOURS * ROWS_AN_HOUR).to_string(), 0));
}

/// A query whose condition was checked before reads no texts, and has the same answer; also together with other conditions, and
/// where another query ended before it had checked all.
#[tokio::test]
async fn conditions_on_texts_are_remembered() {
    let (mut world, closed) = closed_hours().await;
    let day = world.compact(&closed, 2).await;
    assert_eq!(day.len(), 1);
    let conditions = [
        "has_token(body, 'used')",
        "body LIKE '%9 of us%'",
        "body LIKE '%9_of_us%'",
        "body NOT LIKE '%9 of us%'",
        "body LIKE '%of u%' OR severity_number > 9",
        "length(body) % 2 = 0 AND body LIKE '%7%'",
    ];
    let shapes = [
        ("SELECT body FROM logs WHERE ", " LIMIT 3"),
        ("SELECT count(*) AS n FROM logs WHERE ", ""),
        ("SELECT service_name, count(*) AS n FROM logs WHERE ", " GROUP BY 1 ORDER BY 1"),
        ("SELECT count(*) AS n FROM logs WHERE severity_number >= 17 AND ", ""),
        ("SELECT body, time FROM logs WHERE service_name = 'service-7' AND ", " ORDER BY 1, 2 LIMIT 50"),
        ("SELECT count(*) AS n FROM logs WHERE time >= '2024-05-01T02:30:00Z' AND ", ""),
    ];
    let plain = world.without_indexes();
    for condition in conditions {
        for (at, (before, behind)) in shapes.iter().enumerate() {
            let statement = format!("{before}{condition}{behind}");
            let (first, _) = world.sql(&statement).await;
            let (second, stats) = world.sql(&statement).await;
            let (expected, plainly) = plain.sql(&statement).await;
            if at > 0 {
                assert_eq!((&first, &second), (&expected, &expected), "{statement}");
            }
            if at == 1 {
                assert!(stats.bytes_read == 0 && plainly.bytes_read > 0, "{statement}: {stats:?} {plainly:?}");
            }
        }
    }
    // Lines that met a condition are in memory once they were read for it, where they are few.
    let mut read = Vec::new();
    for condition in ["body LIKE '%9 of us%'", "body NOT LIKE '%9 of us%'"] {
        let cold = world.cold();
        let statement = format!("SELECT min(body), max(body), sum(length(body)), count(*) FROM logs WHERE {condition}");
        let (expected, _) = plain.sql(&statement).await;
        for _ in 0..4 {
            let (found, stats) = cold.sql(&statement).await;
            assert_eq!(found, expected, "{statement}");
            read.push(stats.bytes_read > 0);
        }
        let (found, _) = cold.sql(&format!("{statement} AND service_name = 'service-7'")).await;
        let (expected, _) = plain.sql(&format!("{statement} AND service_name = 'service-7'")).await;
        assert_eq!(found, expected, "{statement} of one service");
    }
    assert_eq!(read, [true, true, false, false, true, true, true, true]);
    let mut left_out = Vec::new();
    // Under a sort too, whose bounds change while it reads: they keep no outcome from being noted. No statistics tell the
    // length of a text, so that the bounds leave out no row group, and what is read depends on no thread's pace.
    for condition in conditions {
        let statement =
            format!("SELECT time, body FROM logs WHERE {condition} ORDER BY length(body), time, body LIMIT 5");
        let cold = world.cold();
        let (first, at_first) = cold.sql(&statement).await;
        let (second, again) = cold.sql(&statement).await;
        let (expected, _) = plain.sql(&statement).await;
        assert_eq!((&first, &second), (&expected, &expected), "{statement}");
        let (counted, _) = plain.sql(&format!("SELECT count(*) AS n FROM logs WHERE {condition}")).await;
        let fit = counted[0][0].parse::<u64>().expect("a count");
        assert_eq!(again.rows_scanned, fit, "{statement}: {} at first", at_first.rows_scanned);
        left_out.push(at_first.rows_scanned - fit);
    }
    let learned = left_out.iter().filter(|rows| **rows > 0).count();
    assert!(learned >= 4, "rows that the second time left out, by condition: {left_out:?}");
}
