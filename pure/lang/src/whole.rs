//! Regular expressions that must fit a whole text, as those of selectors must.

use regex::Regex;

/// A regular expression that must fit a whole text; its dot fits any character. The plain ones that most selectors have are no machine:
/// to build one takes longer than many a query.
#[derive(Debug, Clone)]
pub enum WholePattern {
    /// `.*`
    Anything,
    /// `.+`
    Something,
    /// Texts without a special character, divided by `|`; sorted, as selectors may list thousands.
    OneOf(Box<[String]>),
    /// Whatever else, anchored at both ends.
    Expression(Regex),
}

impl WholePattern {
    /// The pattern, which `compile` makes an anchored expression of where it is not plain.
    ///
    /// # Errors
    /// Those of `compile`.
    pub fn new<E>(pattern: &str, compile: impl FnOnce(&str) -> Result<Regex, E>) -> Result<Self, E> {
        let is_plain = |letter: char| letter.is_alphanumeric() || "_-/:@,=% |".contains(letter);
        Ok(match pattern {
            ".*" => Self::Anything,
            ".+" => Self::Something,
            _ if pattern.chars().all(is_plain) => {
                let mut texts: Vec<String> = pattern.split('|').map(str::to_owned).collect();
                texts.sort_unstable();
                Self::OneOf(texts.into())
            }
            _ => Self::Expression(compile(pattern)?),
        })
    }

    /// Whether it fits.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Something => !text.is_empty(),
            Self::OneOf(texts) => texts.binary_search_by(|own| own.as_str().cmp(text)).is_ok(),
            Self::Expression(regex) => regex.is_match(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_patterns_fit_what_their_expressions_fit() {
        let compile = |pattern: &str| Regex::new(&format!("^(?s:{pattern})$"));
        let patterns = [
            ".*",
            ".+",
            "",
            "|",
            "a",
            "a|b",
            "a||b",
            "z|b|a|m",
            "a-b|c/d:e@f",
            "|a",
            "grün|x y",
            "a,b=c%",
            "a.b",
            "a|(b)",
        ];
        let texts = ["", "a", "b", "ab", "a|b", "\n", "a\nb", "a-b", "c/d:e@f", "grün", "x y", "a,b=c%", "a.b", "axb"];
        for pattern in patterns {
            let (plain, regex) =
                (WholePattern::new(pattern, compile).expect("a pattern"), compile(pattern).expect("one"));
            for text in texts {
                assert_eq!(plain.is_match(text), regex.is_match(text), "{pattern:?} {text:?}");
            }
        }
        assert!(WholePattern::new("(", compile).is_err());
    }
}
