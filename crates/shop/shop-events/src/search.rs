//! Text that people search for, in names and in titles.

/// The longest text, in characters.
pub const TEXT_MAX: usize = 200;

/// The most words.
pub const WORDS_MAX: usize = 10;

/// The most steps of SQLite's virtual machine that a search may take; it is broken off after them.
/// FTS5 takes few steps for much work: at most some 60 ms for 1,000 of them. Ten words of one letter
/// each, among 300,000 names, take 2,300.
pub const STEPS_MAX: u32 = 5_000;

/// Why a text is not searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsearchable {
    /// It has no letter and no digit.
    #[error("type a letter or a digit")]
    NoWord,
    /// It is too long.
    #[error("search for at most {WORDS_MAX} words, with at most {TEXT_MAX} characters in all")]
    TooLong,
}

/// The query of SQLite's FTS5 for texts that have every word of `text`, where each may be the
/// beginning of a longer word. The words are quoted: no part of `text` is syntax.
///
/// # Errors
/// There is no word, or too many.
pub fn words(text: &str) -> Result<String, Unsearchable> {
    if text.chars().nth(TEXT_MAX).is_some() {
        return Err(Unsearchable::TooLong);
    }
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
    let words: Vec<String> = words
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"")))
        .collect();
    match words.len() {
        0 => Err(Unsearchable::NoWord),
        1..=WORDS_MAX => Ok(words.join(" ")),
        _ => Err(Unsearchable::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_quoted_and_may_go_on() {
        assert_eq!(
            words(" ada  lo\tve\0lace ").unwrap(),
            "\"ada\"* \"lo\"* \"ve\"* \"lace\"*"
        );
        let syntax = words("a\" OR name:b* NEAR(c) ^d").unwrap();
        assert_eq!(syntax, r#""a"""* "OR"* "name:b*"* "NEAR(c)"* "^d"*"#);
        assert_eq!(words("חצובה 🙂 اسم").unwrap(), "\"חצובה\"* \"اسم\"*");
    }

    #[test]
    fn a_text_without_words_or_with_very_many_is_refused() {
        for text in ["", "  ", "-", "\"*:()^", "🙂", "\u{202e}\u{200b}"] {
            assert_eq!(words(text), Err(Unsearchable::NoWord), "{text:?}");
        }
        for text in ["a".repeat(10_000), "é".repeat(201), "a ".repeat(11)] {
            assert_eq!(words(&text), Err(Unsearchable::TooLong), "{text}");
        }
        assert!(words(&"é".repeat(200)).is_ok());
    }
}
