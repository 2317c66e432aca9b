//! logfmt lines: `key=value key="quoted value" flag`.

use std::borrow::Cow;

use super::{Line, Required, sanitized};
use crate::logql::labels::RowLabels;

const ERROR: &str = "LogfmtParserErr";

/// What the stage asks for.
#[derive(Debug)]
pub(in crate::logql) struct LogfmtOptions {
    /// Whether a malformed pair is an error and ends the line.
    pub is_strict: bool,
    /// Whether keys without a value become labels.
    pub keeps_empty: bool,
    /// Labels with the keys that they take their values from; everything where there is none.
    pub extractions: Vec<(String, String)>,
}

/// One pair: key, and value where it has one.
type Pair<'t> = (&'t str, Option<Cow<'t, str>>);

/// Makes labels of the pairs.
pub(in crate::logql) fn parse_logfmt<'a>(
    line: Line<'_, 'a>,
    labels: &mut RowLabels<'a>,
    options: &LogfmtOptions,
    required: &Required,
) {
    let mut scanner = Scanner { text: line.text(), at: 0 };
    let mut found: Vec<(usize, Cow<'a, str>)> = Vec::new();
    let mut count = 0;
    let wanted = match options.extractions.len() {
        0 => required.count(),
        _ if options.is_strict => usize::MAX,
        count => count,
    };
    while count < wanted {
        let pair = match scanner.pair() {
            Ok(Some(pair)) => pair,
            Ok(None) => break,
            Err((at, why)) => {
                if options.is_strict {
                    labels.set_error(ERROR, format!("at byte {}: {why}", at + 1));
                    break;
                }
                scanner.skip_word();
                continue;
            }
        };
        let (key, value) = pair;
        let value = match value {
            Some(Cow::Borrowed(value)) => line.part(value),
            Some(Cow::Owned(value)) => Cow::Owned(value),
            None => Cow::Borrowed(""),
        };
        if value.is_empty() && !options.keeps_empty {
            continue;
        }
        if options.extractions.is_empty() {
            let name = sanitized(line.part(key));
            if required.needs(&name) {
                labels.add_parsed(name, value);
                count += 1;
            }
        } else {
            for (index, (_, wanted)) in options.extractions.iter().enumerate() {
                if wanted == key && !found.iter().any(|(own, _)| *own == index) {
                    found.push((index, value.clone()));
                    count += 1;
                }
            }
        }
    }
    for (index, (label, _)) in options.extractions.iter().enumerate() {
        if !required.needs(label) {
            continue;
        }
        let value = found.iter().find(|(own, _)| *own == index).map_or(Cow::Borrowed(""), |(_, value)| value.clone());
        labels.add_parsed(Cow::Owned(label.clone()), value);
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    /// The next pair; `None` at the end of the line.
    fn pair(&mut self) -> Result<Option<Pair<'t>>, (usize, &'static str)> {
        let bytes = self.text.as_bytes();
        while self.at < bytes.len() && bytes[self.at] <= b' ' {
            self.at += 1;
        }
        if self.at >= bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        while self.at < bytes.len() && bytes[self.at] > b' ' && !matches!(bytes[self.at], b'=' | b'"') {
            self.at += 1;
        }
        let key = &self.text[start..self.at];
        match bytes.get(self.at) {
            Some(b'"') => return Err((self.at, "unexpected '\"'")),
            Some(b'=') if key.is_empty() => return Err((self.at, "unexpected '='")),
            Some(b'=') => self.at += 1,
            _ => return Ok(Some((key, None))),
        }
        if bytes.get(self.at) == Some(&b'"') {
            return self.quoted().map(|value| Some((key, Some(value))));
        }
        let start = self.at;
        while self.at < bytes.len() && bytes[self.at] > b' ' {
            if matches!(bytes[self.at], b'=' | b'"') {
                return Err((self.at, "unexpected '=' or '\"' in a value"));
            }
            self.at += 1;
        }
        Ok(Some((key, Some(Cow::Borrowed(&self.text[start..self.at])))))
    }

    fn quoted(&mut self) -> Result<Cow<'t, str>, (usize, &'static str)> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start + 1;
        let mut has_escapes = false;
        loop {
            match bytes.get(end) {
                None => {
                    self.at = bytes.len();
                    return Err((start, "unterminated quoted value"));
                }
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    end += 2;
                }
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        let inner = &self.text[start + 1..end];
        if !has_escapes {
            return Ok(Cow::Borrowed(inner));
        }
        match serde_json::from_str::<String>(&self.text[start..=end]) {
            Ok(value) => Ok(Cow::Owned(value)),
            Err(_) => Err((start, "invalid quoted value")),
        }
    }

    /// Goes to the next blank.
    fn skip_word(&mut self) {
        let bytes = self.text.as_bytes();
        while self.at < bytes.len() && bytes[self.at] > b' ' {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(line: &str, is_strict: bool, keeps_empty: bool) -> (Vec<String>, Option<&'static str>) {
        let options = LogfmtOptions { is_strict, keeps_empty, extractions: Vec::new() };
        let mut labels = RowLabels::default();
        parse_logfmt(line.into(), &mut labels, &options, &Required::All);
        (labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect(), labels.error())
    }

    #[test]
    fn malformed_pairs_are_left_out_or_end_the_line() {
        let line = r#"a=1 lev"el=warn b="x \"y\"" =novalue c.d=2 flag e= z=3"#;
        assert_eq!(
            labels(line, false, false),
            (vec!["a=1".into(), "b=x \"y\"".into(), "c_d=2".into(), "z=3".into()], None)
        );
        assert_eq!(labels(line, true, false), (vec!["a=1".into()], Some(ERROR)));
        assert_eq!(labels("flag e= z=3", true, true).0, ["flag=", "e=", "z=3"]);
        assert_eq!(labels("a=1 b=\"open c=2", false, false), (vec!["a=1".into()], None));
        assert_eq!(labels("a=1 b=\"open c=2", true, false).1, Some(ERROR));
    }
}
