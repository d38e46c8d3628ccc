//! Checks names and titles: one line of text that users enter and others see.
//!
//! A text is refused if it breaks the line, changes how the surrounding text is shown, or shows
//! nothing. Unicode's properties decide which characters do that.

use icu_properties::props::{
    BidiControl, BinaryProperty as _, DefaultIgnorableCodePoint, EnumeratedProperty as _,
    GeneralCategory,
};

/// Symbols without a glyph that no property marks: a Braille cell without dots, and a note without
/// a head.
const EMPTY_SYMBOLS: [char; 2] = ['\u{2800}', '\u{1d159}'];

/// Marks with a direction, like a letter's. They are common in copied text and do not affect the
/// surrounding text.
const MARKS: [char; 3] = ['\u{61c}', '\u{200e}', '\u{200f}'];

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The text shows nothing.
    #[error("must have a visible character")]
    Blank,
    /// A control character or a line break.
    #[error("must not contain {}, a control character or line break", code_point(*.0))]
    Control(char),
    /// A character that changes the direction of the text.
    #[error("must not contain {}, which changes the direction of the text", code_point(*.0))]
    Direction(char),
}

fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// Checks that `text` is one line that shows something and does not affect other text.
///
/// # Errors
/// Why `text` is refused.
pub fn check_line(text: &str) -> Result<(), Unfit> {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            return Err(Unfit::Control(c));
        }
        if BidiControl::for_char(c) && !MARKS.contains(&c) {
            return Err(Unfit::Direction(c));
        }
    }
    if text.chars().any(is_visible) {
        Ok(())
    } else {
        Err(Unfit::Blank)
    }
}

/// Whether a character shows something.
pub fn is_visible(c: char) -> bool {
    let is_format = GeneralCategory::for_char(c) == GeneralCategory::Format;
    let is_hidden = is_format || DefaultIgnorableCodePoint::for_char(c);
    !is_hidden && !c.is_whitespace() && !EMPTY_SYMBOLS.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_script_and_emoji_are_taken() {
        for text in [
            "Ada Byron",
            "d’Artagnan – “Ünïcode” №7",
            "e\u{301}toile",
            "中文　字",
            "葛\u{e0100}城",
            "می\u{200c}خواهم",
            "جزء\u{200c}ها",
            "کار\u{200c}ها",
            "ශ්\u{200d}රී",
            "क्\u{200d}ष क्\u{200c}ष",
            "র\u{200d}্যাব",
            "שלום עולם",
            "ᠮᠣᠩᠭᠣᠯ\u{180b}",
            "1\u{fe0f}\u{20e3} ❤\u{fe0f} ☕",
            "👩🏽\u{200d}🚀 👨\u{200d}👩\u{200d}👧 🏳\u{fe0f}\u{200d}🌈 👁\u{fe0f}\u{200d}🗨\u{fe0f}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "\u{2801}\u{2800}\u{2801}",
            "copied\u{200e} text\u{200b} with\u{ad} marks\u{feff}",
        ] {
            assert_eq!(check_line(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn control_characters_and_line_breaks_are_refused() {
        for c in ('\0'..=' ')
            .chain('\u{7f}'..='\u{a0}')
            .chain(['\u{2028}', '\u{2029}'])
        {
            let text = format!("Ada{c}Byron");
            let expected = if c == ' ' || c == '\u{a0}' {
                Ok(())
            } else {
                Err(Unfit::Control(c))
            };
            assert_eq!(check_line(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_changes_the_direction_is_refused() {
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let text = format!("gpj.{c}cod");
            assert_eq!(check_line(&text), Err(Unfit::Direction(c)), "{text:?}");
        }
    }

    #[test]
    fn a_text_has_something_that_can_be_seen() {
        for text in [
            "",
            " ",
            "\u{a0}\u{3000}\u{2003}",
            "\u{2800}\u{2800}",
            "\u{1d159}",
            "\u{200b}\u{ad}\u{200f} ",
            "\u{3164}\u{115f}\u{1160}",
            "\u{e0041}\u{fe0f}",
        ] {
            assert_eq!(check_line(text), Err(Unfit::Blank), "{text:?}");
        }
    }
}
