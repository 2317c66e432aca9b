//! With and without indexes, at every level, a query answers the same rows.

use crate::world::{SECOND_NS, START_NS, World, attribute, log, logs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_types::Signal;

const WORDS: [&str; 12] = [
    "error",
    "Error",
    "timeout",
    "user42",
    "x",
    "order17",
    "größe",
    "a-b",
    "100%",
    "under_score",
    "7f3a9c",
    "back\\slash",
];
const SEVERITIES: [i32; 8] = [0, 1, 9, 12, 13, 16, 17, 24];
const SERVICES: [&str; 3] = ["api", "cart", "größe"];

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

fn body(random: &mut StdRng) -> String {
    let mut words: Vec<String> = (0..random.random_range(0..6)).map(|_| pick(random, &WORDS).to_owned()).collect();
    if random.random_range(0..10) == 0 {
        words.push("z".repeat(random.random_range(60..70)));
    }
    words.join(pick(random, &[" ", "", "=", ", "]))
}

fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..12) {
        0 => json!(random.random_range(0..5)),
        1 => json!(0.5),
        2 => json!(true),
        _ => json!(pick(random, &WORDS)),
    }
}

fn request(random: &mut StdRng, first_second: i64) -> Value {
    let records = (0..random.random_range(50..150)).map(|_| {
        let mut attributes = Vec::new();
        if random.random_bool(0.7) {
            attributes.push(attribute("mixed", value(random)));
        }
        if random.random_bool(0.5) {
            attributes.push(attribute("word", json!(pick(random, &WORDS))));
        }
        if random.random_bool(0.5) {
            attributes.push(attribute("number", json!(random.random_range(0..100))));
        }
        let at = START_NS + (first_second + random.random_range(0..100)) * SECOND_NS;
        let mut record = log(at, &body(random), attributes);
        // Some have a number and no text, some a text and no number, some neither.
        record["severityNumber"] = json!(SEVERITIES[random.random_range(0..SEVERITIES.len())]);
        record["severityText"] = json!(pick(random, &["", "ERROR", "warning", "INFO"]));
        record["traceId"] = json!(format!("{:032x}", random.random_range(1..40_u32)));
        record
    });
    let records: Vec<Value> = records.collect();
    logs(pick(random, &SERVICES), records)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn condition(random: &mut StdRng, depth: u32) -> String {
    if depth > 0 && random.random_bool(0.5) {
        let (one, other) = (condition(random, depth - 1), condition(random, depth - 1));
        return match random.random_range(0..3) {
            0 => format!("({one} AND {other})"),
            1 => format!("({one} OR {other})"),
            _ => format!("NOT ({one})"),
        };
    }
    let word = pick(random, &WORDS);
    match random.random_range(0..16) {
        0 => format!("body LIKE {}", quoted(&format!("%{word}%"))),
        1 => format!("body LIKE {}", quoted(&format!("%{}%{}%", word, pick(random, &WORDS)))),
        2 => format!("body LIKE {}", quoted(&format!("{}%", &word[..1]))),
        3 => format!("body = {}", quoted(word)),
        4 => format!(
            "has_token(body, {})",
            quoted(pick(random, &["error", "Error", "user42", "7f3a9c", "order17", "nothing"]))
        ),
        5 => format!("service_name = {}", quoted(pick(random, &SERVICES))),
        6 => format!("service_name IN ({}, 'nobody')", quoted(pick(random, &SERVICES))),
        7 => format!("attr('word') = {}", quoted(word)),
        8 => format!("attr('mixed') = {}", quoted(pick(random, &["error", "3", "0.5", "true"]))),
        9 => format!("attr('number') {} {}", pick(random, &["<", ">=", "="]), random.random_range(0..100)),
        10 => format!("trace_id = '{:032x}'", random.random_range(1..45_u32)),
        11 => {
            let second = random.random_range(0..600);
            let at = format!("2024-05-01T00:{:02}:{:02}Z", second / 60, second % 60);
            format!("time {} '{at}'", pick(random, &["<", ">=", ">", "<="]))
        }
        12 => format!("severity_number {} {}", pick(random, &["<", ">=", ">", "=", "<>"]), random.random_range(-1..26)),
        13 => format!("severity_number BETWEEN {} AND 18", random.random_range(0..18)),
        14 => format!("severity_number IS {}NULL", pick(random, &["", "NOT "])),
        _ => format!("contains(body, {})", quoted(&word[..1])),
    }
}

#[tokio::test]
async fn indexes_change_no_answer() {
    let seed: u64 = std::env::var("TIDEMILL_TEST_SEED").map_or(7, |seed| seed.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    let mut metas = Vec::new();
    for part in 0..6 {
        metas.extend(world.ingest(Signal::Logs, &request(&mut random, part * 80)).await);
    }
    let plain = world.without_indexes();
    let conditions: Vec<String> = (0..90).map(|_| condition(&mut random, 2)).collect();
    let statement = |condition: &str| {
        format!(
            "SELECT time, service_name, body, severity_number, trace_id, attr('mixed'), attr('word'), attr('number') FROM logs WHERE {condition} \
             ORDER BY 1, 2, 3, 4, 5, 6, 7, 8"
        )
    };
    let mut expected = Vec::new();
    for condition in &conditions {
        expected.push(plain.sql(&statement(condition)).await.0);
    }
    assert!(
        expected.iter().any(|rows| !rows.is_empty()) && expected.iter().any(|rows| rows.len() < 100),
        "seed {seed}"
    );
    for (condition, expected) in conditions.iter().zip(&expected) {
        assert_eq!(&world.sql(&statement(condition)).await.0, expected, "level 0, seed {seed}: {condition}");
    }
    // Half of it becomes one indexed segment, the rest stays as it is.
    world.compact(&metas[..3], 1).await;
    for (condition, expected) in conditions.iter().zip(&expected) {
        assert_eq!(&world.sql(&statement(condition)).await.0, expected, "level 1, seed {seed}: {condition}");
    }
}
