//! Names and titles: one line that people enter and others see.
//!
//! What is refused either breaks the line, changes how the text around it is shown, or cannot be
//! seen, so that two texts look alike or one looks empty. Which characters these are, Unicode's
//! properties say.

use icu_properties::props::{
    BidiClass, BidiControl, BinaryProperty as _, CanonicalCombiningClass,
    DefaultIgnorableCodePoint, Emoji, EmojiModifier, EnumeratedProperty as _, ExtendedPictographic,
    GeneralCategory, Ideographic, JoiningType, NoncharacterCodePoint, PrependedConcatenationMark,
    VariationSelector,
};

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const COMBINING_KEYCAP: char = '\u{20e3}';
const BLACK_FLAG: char = '\u{1f3f4}';

/// The most tags behind a flag: those of Scotland, and the one that ends them.
const TAGS_MAX: usize = 6;

/// Symbols without a glyph, which no property tells: a Braille cell without dots, and a note
/// without a head.
const EMPTY_SYMBOLS: [char; 2] = ['\u{2800}', '\u{1d159}'];

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is nothing in it that can be seen.
    #[error("must have something that can be seen")]
    Blank,
    /// A control character or a line break.
    #[error("must not have {} in it, a control character or line break", code_point(*.0))]
    Control(char),
    /// A character that changes the direction of the text.
    #[error("must not have {} in it, which changes the direction of the text", code_point(*.0))]
    Direction(char),
    /// A character that cannot be seen, and that its neighbours do not need.
    #[error("must not have {} in it, which cannot be seen", code_point(*.0))]
    Hidden(char),
}

fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// Checks that `text` is one line that shows what it is.
///
/// Joiners are taken where scripts and emoji need them (the rules of RFC 5892, appendix A, and
/// UTS 51), variation selectors behind what varies, tags behind a flag.
///
/// # Errors
/// Why it is not.
pub fn check_line(text: &str) -> Result<(), Unfit> {
    let text: Vec<char> = text.chars().collect();
    let mut is_blank = true;
    for (index, &c) in text.iter().enumerate() {
        let (before, after) = (&text[..index], &text[index + 1..]);
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            return Err(Unfit::Control(c));
        }
        if BidiControl::for_char(c) {
            return Err(Unfit::Direction(c));
        }
        if !is_hidden(c) {
            is_blank &= c.is_whitespace() || EMPTY_SYMBOLS.contains(&c);
        } else if !is_needed(before, c, after) {
            return Err(Unfit::Hidden(c));
        }
    }
    if is_blank {
        return Err(Unfit::Blank);
    }
    Ok(())
}

fn is_hidden(c: char) -> bool {
    let is_format = GeneralCategory::for_char(c) == GeneralCategory::Format;
    DefaultIgnorableCodePoint::for_char(c)
        || NoncharacterCodePoint::for_char(c)
        || (is_format && !PrependedConcatenationMark::for_char(c))
}

/// Whether a hidden character does something between its neighbours.
fn is_needed(before: &[char], c: char, after: &[char]) -> bool {
    match c {
        ZERO_WIDTH_NON_JOINER => is_between_letters(before, after),
        ZERO_WIDTH_JOINER => is_between_letters(before, after) || is_between_emoji(before, after),
        '\u{e0020}'..='\u{e007f}' => is_behind_flag(before),
        _ if VariationSelector::for_char(c) => {
            let varies = |c: char| {
                (Emoji::for_char(c) && !c.is_ascii()) || Ideographic::for_char(c) || joins(c)
            };
            before.last().is_some_and(|c| varies(*c)) || after.first() == Some(&COMBINING_KEYCAP)
        }
        _ => false,
    }
}

/// Letters that would join otherwise, or a virama.
fn is_between_letters(before: &[char], after: &[char]) -> bool {
    let is_virama = |c: Option<&char>| {
        c.is_some_and(|c| CanonicalCombiningClass::for_char(*c) == CanonicalCombiningClass::Virama)
    };
    let is_letter = |c: &&char| JoiningType::for_char(**c) != JoiningType::Transparent;
    let left = before.iter().rev().find(is_letter);
    let right = after.iter().find(is_letter);
    let join = left.is_some_and(|c| joins(*c)) && right.is_some_and(|c| joins(*c));
    join || is_virama(before.last()) || is_virama(after.first())
}

/// Whether it is a letter of a script whose letters join. Some of them, such as the Arabic hamza,
/// do not.
fn joins(c: char) -> bool {
    let joining = JoiningType::for_char(c);
    let never = [
        JoiningType::NonJoining,
        JoiningType::JoinCausing,
        JoiningType::Transparent,
    ];
    !never.contains(&joining) || BidiClass::for_char(c) == BidiClass::ArabicLetter
}

fn is_between_emoji(before: &[char], after: &[char]) -> bool {
    let varies = |c: &&char| !VariationSelector::for_char(**c) && !EmojiModifier::for_char(**c);
    let is_emoji = |c: Option<&char>| c.is_some_and(|c| ExtendedPictographic::for_char(*c));
    is_emoji(before.iter().rev().find(varies)) && is_emoji(after.first())
}

fn is_behind_flag(before: &[char]) -> bool {
    let is_tag = |c: &&char| matches!(**c, '\u{e0020}'..='\u{e007f}');
    let tags = before.iter().rev().take_while(is_tag).count();
    tags < TAGS_MAX && before.iter().rev().nth(tags) == Some(&BLACK_FLAG)
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
        let marks = ['\u{61c}', '\u{200e}', '\u{200f}'];
        let others = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        for c in marks.into_iter().chain(others) {
            let text = format!("gpj.{c}cod");
            assert_eq!(check_line(&text), Err(Unfit::Direction(c)), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_refused_unless_its_neighbours_need_it() {
        for (text, c) in [
            ("Pay\u{200b}Pal", '\u{200b}'),
            ("Pay\u{200c}Pal", '\u{200c}'),
            ("Pay\u{200d}Pal", '\u{200d}'),
            ("Pay\u{2060}Pal", '\u{2060}'),
            ("Pay\u{ad}Pal", '\u{ad}'),
            ("Pay\u{34f}Pal", '\u{34f}'),
            ("Pay\u{fe0f}Pal", '\u{fe0f}'),
            ("Pay\u{e0050}Pal", '\u{e0050}'),
            ("\u{feff}Pay", '\u{feff}'),
            ("Pay\u{180e}", '\u{180e}'),
            ("Pay\u{fff9}", '\u{fff9}'),
            ("Pay\u{fffe}", '\u{fffe}'),
            ("\u{3164}", '\u{3164}'),
            ("\u{115f}\u{1160}", '\u{115f}'),
            ("❤\u{fe0f}\u{fe0f}", '\u{fe0f}'),
            ("😀\u{200d}", '\u{200d}'),
            ("😀\u{e0041}", '\u{e0041}'),
            ("می\u{200c} ", '\u{200c}'),
        ] {
            assert_eq!(check_line(text), Err(Unfit::Hidden(c)), "{text:?}");
        }
        let smuggled = "🏴".to_owned() + &"\u{e0061}".repeat(7);
        assert!(check_line(&smuggled).is_err());
    }

    #[test]
    fn a_text_has_something_that_can_be_seen() {
        for text in [
            "",
            " ",
            "\u{a0}\u{3000}\u{2003}",
            "\u{2800}\u{2800}",
            "\u{1d159}",
        ] {
            assert_eq!(check_line(text), Err(Unfit::Blank), "{text:?}");
        }
    }
}
