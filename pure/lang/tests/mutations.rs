//! Queries with random changes are read or refused, never worse; what is read is printed so that it reads back.

const LOGQL: &str = include_str!("../../../eval/tests/logql/cases.json");
const TRACEQL: &str = include_str!("../../../eval/tests/traceql/cases.json");
/// Changed queries of each recorded one.
const ROUNDS: usize = 12;
const PIECES: [&str; 24] = [
    "{",
    "}",
    "(",
    ")",
    "|",
    "\"",
    "`",
    "\\",
    "{{",
    "}}",
    "=~",
    "!",
    "[5m]",
    ",",
    "é",
    "\u{0}",
    "1e400",
    "-",
    ".",
    "<_>",
    "9223372036854775808",
    "$x",
    "by (",
    "#",
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

fn queries(cases: &str) -> Vec<String> {
    let mut queries = Vec::new();
    for line in cases.lines() {
        let Some(rest) = line.split("\"query\":\"").nth(1) else { continue };
        let mut query = String::new();
        let mut letters = rest.chars();
        while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
            match letter {
                '\\' => match letters.next() {
                    Some('n') => query.push('\n'),
                    Some('t') => query.push('\t'),
                    Some(other) => query.push(other),
                    None => break,
                },
                plain => query.push(plain),
            }
        }
        queries.push(query);
    }
    queries
}

fn changed(query: &str, dice: &mut Dice) -> String {
    let mut letters: Vec<char> = query.chars().collect();
    for _ in 0..=dice.below(3) {
        let at = dice.below(letters.len() + 1);
        match dice.below(4) {
            0 if !letters.is_empty() => drop(letters.remove(at.min(letters.len() - 1))),
            1 => {
                let piece: Vec<char> = PIECES[dice.below(PIECES.len())].chars().collect();
                letters.splice(at..at, piece);
            }
            2 => letters.truncate(at),
            _ => {
                let from = dice.below(letters.len() + 1);
                let (start, end) = (from.min(at), from.max(at));
                let copy: Vec<char> = letters[start..end].to_vec();
                letters.splice(at..at, copy);
            }
        }
    }
    letters.into_iter().collect()
}

fn drive(cases: &str, seed: u64, read: impl Fn(&str) -> Option<String>) {
    let mut dice = Dice(seed);
    let (mut tried, mut accepted) = (0, 0);
    for query in queries(cases) {
        for _ in 0..ROUNDS {
            let text = changed(&query, &mut dice);
            tried += 1;
            let Some(printed) = read(&text) else { continue };
            accepted += 1;
            let again = read(&printed).unwrap_or_else(|| panic!("{text:?} printed as {printed:?} is refused"));
            assert_eq!(again, printed, "{text:?}");
        }
    }
    assert!(tried > 3_000 && accepted > 100, "{accepted} of {tried}");
}

#[test]
fn changed_logql_is_read_or_refused() {
    drive(LOGQL, 0x5eed_1096, |text| {
        tidemill_lang::logql::parse(text).ok().map(|tree| tidemill_lang::logql::print::print(&tree))
    });
}

#[test]
fn changed_traceql_is_read_or_refused() {
    drive(TRACEQL, 0x5eed_7ace, |text| {
        tidemill_lang::traceql::parse(text).ok().map(|tree| tidemill_lang::traceql::print::print(&tree))
    });
}
