//! Lines with random changes pass every parser and formatter: they are labelled or marked, never worse.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use tidemill_eval::logql::{
    Direction, LINE_COLUMN, LogBatch, LogParams, LogRun, STREAM_COLUMN, StreamLabels, TIME_COLUMN,
};
use tidemill_lang::logql::ast::Query;
use tidemill_lang::logql::parse;

const LINES: [&str; 6] = [
    r#"{"a":"x\n\u00e9\ud83d\ude80","b":{"c-d":1.50,"e":[1,{"f":null}]},"1f":true,"_entry":"y"}"#,
    r#"level=info msg="stock \"low\" ☕" dur=1m3.5s size=4KiB =x lev"el=1 flag c= d="#,
    r#"10.0.0.1 - ünal [01/Jun/2025:00:00:06 +0000] "GET /a?b=c HTTP/1.1" 502 8617 "-" 0.2"#,
    "\u{1b}[31mERROR\u{1b}[0m job 1 \u{1b}[1;33mtimeout 2001:db8::1:",
    "日本語 ☃ 🚀",
    "",
];
const QUERIES: [&str; 10] = [
    r#"{a="b"} | json"#,
    r#"{a="b"} | json x="b.e[1].f", y="b[\"c-d\"]", z="[0]""#,
    r#"{a="b"} | logfmt --keep-empty | dur > 1s or size > 1KB"#,
    r#"{a="b"} | logfmt --strict msg, level | unwrap_free = "" "#,
    r#"{a="b"} | pattern `<ip> - <user> [<_>] "<method> <path> <_>" <status>`"#,
    r#"{a="b"} | regexp `(?P<first>\S*) (?P<rest>.*)` | first != ip("::/0")"#,
    r#"{a="b"} | unpack | decolorize |> "<_>a<_>""#,
    r#"{a="b"} |= ip("0.0.0.0/0") or "é""#,
    r#"{a="b"} | json | line_format `{{ __line__ | trunc 7 | upper }}{{ substr 1 5 .a }}{{ alignRight 3 .a }}{{ fromJson .a }}`"#,
    r#"{a="b"} | label_format x=`{{ title __line__ | urlencode | urldecode | b64enc | b64dec | printf "%5.3s" }}`, a=x"#,
];

/// A small generator (xorshift64), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn changed(line: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = line.chars().collect();
    for _ in 0..=dice.below(4) {
        let at = dice.below(letters.len() + 1);
        match dice.below(3) {
            0 => letters.insert(at, ['"', '\\', '{', '}', '=', ' ', 'é', '[', ':', '.', '\u{1b}', 'u'][dice.below(12)]),
            1 => letters.truncate(at),
            _ if !letters.is_empty() => drop(letters.remove(at.min(letters.len() - 1))),
            _ => {}
        }
    }
    letters.into_iter().collect()
}

#[test]
fn changed_lines_are_labelled_or_marked() {
    let mut dice = Dice(0x5eed_11e5);
    let lines: Vec<String> = (0..2_400).map(|index| changed(LINES[index % LINES.len()], &mut dice)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (TIME_COLUMN, Arc::new((0..lines.len() as i64).collect::<Int64Array>())),
        (LINE_COLUMN, Arc::new(lines.iter().map(Some).collect::<StringArray>())),
        (STREAM_COLUMN, Arc::new(lines.iter().map(|_| 0).collect::<UInt32Array>())),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let batch = LogBatch::new(&rows, Arc::from([StreamLabels::of([("a", "b")])])).expect("a batch");
    for text in QUERIES {
        let Ok(Query::Log(query)) = parse(text) else { panic!("{text}") };
        let params = LogParams {
            start_ns: 0,
            end_ns: i64::MAX,
            limit: 0,
            direction: Direction::Forward,
            interval_ns: 0,
            now_ns: 0,
        };
        let mut run = LogRun::new(&query, params).expect("a run");
        run.push(&batch).expect("lines in order");
        let kept: usize = run.finish().iter().map(|stream| stream.entries.len()).sum();
        assert!((1..=lines.len()).contains(&kept), "{text}: {kept}");
    }
}
