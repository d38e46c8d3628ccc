//! The personal values of an event, masked in texts that programs wrote about it.
//!
//! A text may quote a value as it is, in another case, cut off (`Ada L…`), or as `Debug` writes it.
//! Values are compared word by word, so that the name `long` leaves `longer` alone. The mask reaches
//! from the first quoted word to the last: what stands between two masks would give the value away.
//! What a program computed from a value, such as its length, is not recognized.

use std::collections::BTreeSet;
use std::ops::Range;

use headwater::version::NEWER_FIELD;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
};
use prost_reflect::{MapKey, Value};

use crate::mask::MASK;

/// How many characters of values are compared. If an event has more, all of a text is masked.
const COMPARED_MAX: usize = 4096;

/// How often a text may be escaped: the `Debug` of a text that has the `Debug` of a value.
const ESCAPED_MAX: usize = 3;

/// The least characters of the beginning or end of a value that count as the value, though nothing
/// says that it was cut off.
const PART_MIN: usize = 4;

/// The personal values of an event.
#[derive(Debug, Default)]
pub struct Values {
    /// The values and their words, in lower case.
    wanted: BTreeSet<Vec<char>>,
    /// Whether there are values that a text may have in an unknown form.
    is_unknown: bool,
}

impl Values {
    /// Those of an event that cannot be decoded: every text is masked as a whole.
    pub fn unknown() -> Self {
        Self {
            is_unknown: true,
            ..Self::default()
        }
    }

    /// `personal` has the full names of personal fields.
    pub(crate) fn of(message: &DynamicMessage, personal: &BTreeSet<String>) -> Self {
        let mut values = Self::default();
        values.add_fields(message, personal, false);
        let len: usize = values.wanted.iter().map(Vec::len).sum();
        values.is_unknown |= len > COMPARED_MAX;
        values
    }

    /// `is_personal`: whether all fields of the message are.
    fn add_fields(
        &mut self,
        message: &DynamicMessage,
        personal: &BTreeSet<String>,
        is_personal: bool,
    ) {
        // The schema is older than the event.
        let mut unknown = message.unknown_fields();
        self.is_unknown |= unknown.any(|field| field.number() != NEWER_FIELD);
        for (field, value) in message.fields() {
            let is_personal = is_personal || personal.contains(field.full_name());
            self.add(&field, value, personal, is_personal);
        }
    }

    fn add(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        personal: &BTreeSet<String>,
        is_personal: bool,
    ) {
        match value {
            Value::Message(inner) => {
                // A time and the like: texts have it in many forms.
                let is_time = inner.descriptor().package_name() == "google.protobuf";
                self.is_unknown |= is_personal && is_time;
                self.add_fields(inner, personal, is_personal);
            }
            Value::List(list) => {
                for value in list {
                    self.add(field, value, personal, is_personal);
                }
            }
            Value::Map(map) => {
                for (key, value) in map {
                    if is_personal {
                        self.add_text(&text_of(key));
                    }
                    self.add(field, value, personal, is_personal);
                }
            }
            _ if !is_personal => {}
            Value::String(text) => self.add_text(text),
            Value::Bytes(bytes) => self.is_unknown |= !bytes.is_empty(),
            Value::EnumNumber(number) => {
                self.add_text(&number.to_string());
                if let Some(name) = name_of(field, *number) {
                    self.add_text(&name);
                }
            }
            Value::Bool(it) => self.add_text(&it.to_string()),
            Value::I32(it) => self.add_text(&it.to_string()),
            Value::I64(it) => self.add_text(&it.to_string()),
            Value::U32(it) => self.add_text(&it.to_string()),
            Value::U64(it) => self.add_text(&it.to_string()),
            Value::F32(it) => self.add_text(&it.to_string()),
            Value::F64(it) => self.add_text(&it.to_string()),
        }
    }

    fn add_text(&mut self, text: &str) {
        let words = text.split(|c: char| !c.is_alphanumeric());
        for part in words.chain([text.trim()]).filter(|part| !part.is_empty()) {
            self.wanted.insert(part.chars().flat_map(lower).collect());
        }
    }

    /// The text with a mask for what it quotes of the values; `None` if it quotes nothing.
    pub fn mask(&self, text: &str) -> Option<String> {
        if self.is_unknown {
            return Some(MASK.to_owned());
        }
        let mut letters = letters(text);
        let mut found = self.quoted(&letters);
        for _ in 0..ESCAPED_MAX {
            let Some(next) = unescaped(&letters) else {
                break;
            };
            letters = next;
            found = around(found, self.quoted(&letters));
        }
        let Range { start, end } = found?;
        Some(format!("{}{MASK}{}", &text[..start], &text[end..]))
    }

    /// From the first to the last quoted word.
    fn quoted(&self, letters: &[Letter]) -> Option<Range<usize>> {
        let lower: Vec<Letter> = letters.iter().flat_map(Letter::lower).collect();
        let forward = find(&lower, self.wanted.iter().map(|it| it.iter()));
        let reversed: Vec<Letter> = lower.into_iter().rev().collect();
        let backward = find(&reversed, self.wanted.iter().map(|it| it.iter().rev()));
        around(forward, backward)
    }
}

/// Whether a message has a personal field, or one of the messages in it has. `seen`: the messages
/// that were looked at.
pub(crate) fn has_any(
    message: &MessageDescriptor,
    personal: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
) -> bool {
    seen.insert(message.full_name().to_owned())
        && message.fields().any(|field| {
            personal.contains(field.full_name())
                || matches!(field.kind(), Kind::Message(inner) if has_any(&inner, personal, seen))
        })
}

fn text_of(key: &MapKey) -> String {
    match key {
        MapKey::Bool(it) => it.to_string(),
        MapKey::I32(it) => it.to_string(),
        MapKey::I64(it) => it.to_string(),
        MapKey::U32(it) => it.to_string(),
        MapKey::U64(it) => it.to_string(),
        MapKey::String(it) => it.clone(),
    }
}

fn name_of(field: &FieldDescriptor, number: i32) -> Option<String> {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let value = kind.as_enum()?.get_value(number)?;
    Some(value.name().to_owned())
}

/// A character, and where it stands in the text.
#[derive(Clone, Debug)]
struct Letter {
    char: char,
    span: Range<usize>,
}

impl Letter {
    fn lower(&self) -> impl Iterator<Item = Self> {
        let span = self.span.clone();
        lower(self.char).map(move |char| Self {
            char,
            span: span.clone(),
        })
    }
}

fn letters(text: &str) -> Vec<Letter> {
    let letter = |(start, char): (usize, char)| Letter {
        char,
        span: start..start + char.len_utf8(),
    };
    text.char_indices().map(letter).collect()
}

/// In lower case; by way of the upper case, so that `ß` is `ss` on both sides.
fn lower(char: char) -> impl Iterator<Item = char> {
    char.to_uppercase().flat_map(char::to_lowercase)
}

/// The span of all that is quoted of `wanted`.
fn find<'a, W>(letters: &[Letter], wanted: impl Iterator<Item = W> + Clone) -> Option<Range<usize>>
where
    W: ExactSizeIterator<Item = &'a char>,
{
    let chars: Vec<char> = letters.iter().map(|letter| letter.char).collect();
    let begins = |at: &usize| *at == 0 || !is_joined(chars[at - 1], chars[*at]);
    let mut found = None;
    for at in (0..chars.len()).filter(begins) {
        let lens = wanted.clone().filter_map(|it| quoted_len(&chars[at..], it));
        if let Some(len) = lens.max() {
            let (first, last) = (&letters[at].span, &letters[at + len - 1].span);
            let both = around(Some(first.clone()), Some(last.clone()));
            found = around(found, both);
        }
    }
    found
}

/// How many characters at the beginning of `text` quote the value.
fn quoted_len<'a>(text: &[char], value: impl ExactSizeIterator<Item = &'a char>) -> Option<usize> {
    let whole = value.len();
    let len = text.iter().zip(value).take_while(|(a, b)| a == b).count();
    let last = text.get(len.checked_sub(1)?)?;
    let after = &text[len..];
    let is_end = after.first().is_none_or(|next| !is_joined(*last, *next));
    let is_cut = after.starts_with(&['…']) || after.starts_with(&['.'; 3]);
    let is_quoted = is_cut || is_end && (len == whole || len >= PART_MIN);
    is_quoted.then_some(len)
}

/// Whether two characters are of one word. Scripts without upper and lower case may be written
/// without spaces: there, each character counts as a word.
fn is_joined(one: char, next: char) -> bool {
    let is_of_word = |c: char| c.is_lowercase() || c.is_numeric();
    is_of_word(one) && is_of_word(next)
}

fn around(one: Option<Range<usize>>, other: Option<Range<usize>>) -> Option<Range<usize>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.start.min(other.start)..one.end.max(other.end)),
        (one, other) => one.or(other),
    }
}

/// The text with its escapes decoded; `None` if there are none.
fn unescaped(letters: &[Letter]) -> Option<Vec<Letter>> {
    let (mut out, mut at, mut any) = (Vec::new(), 0, false);
    while let Some(letter) = letters.get(at) {
        let rest = &letters[at + 1..];
        let escape = (letter.char == '\\').then(|| escaped(rest)).flatten();
        let (char, len) = escape.unwrap_or((letter.char, 0));
        any |= len > 0;
        let span = letter.span.start..letters[at + len].span.end;
        out.push(Letter { char, span });
        at += 1 + len;
    }
    any.then_some(out)
}

/// The character that an escape stands for, and the length of the escape after its backslash.
fn escaped(rest: &[Letter]) -> Option<(char, usize)> {
    let number = |digits: &[Letter]| {
        let digits: String = digits.iter().map(|digit| digit.char).collect();
        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
    };
    let plain = |char| Some((char, 1));
    match rest.first()?.char {
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'b' => plain('\u{8}'),
        'f' => plain('\u{c}'),
        '0' => plain('\0'),
        char @ ('\\' | '"' | '\'' | '/') => plain(char),
        'x' => Some((number(rest.get(1..3)?)?, 3)),
        'u' if rest.get(1)?.char == '{' => {
            let len = rest.iter().position(|letter| letter.char == '}')?;
            Some((number(&rest[2..len])?, len + 1))
        }
        'u' => Some((number(rest.get(1..5)?)?, 5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Values {
        let mut values = Values::default();
        texts.iter().for_each(|text| values.add_text(text));
        values
    }

    #[test]
    fn what_a_text_quotes_of_a_value_is_masked_in_every_form() {
        let quote = "\"the\" L\u{f6}we\n\u{301}\\";
        let debug = format!("{quote:?}");
        let twice = format!("{:?}", format!("name {debug}"));
        for (value, text, masked) in [
            ("Ada", "name `Ada` is taken", "name `(personal)` is taken"),
            ("Ada", "ADA is taken, not ada", "(personal)"),
            ("Ada", "key=ada@example.org", "key=(personal)@example.org"),
            ("Stra\u{df}e", "no STRASSE", "no (personal)"),
            // Cut off, with and without a sign.
            (
                "Ada Lovelace",
                "name `Ada L…` is longer",
                "name `(personal)…` is longer",
            ),
            (
                "Ada Lovelace",
                "name `A...` is longer",
                "name `(personal)...` is longer",
            ),
            (
                "Ada Lovelace",
                "name `…ace` is longer",
                "name `…(personal)` is longer",
            ),
            (
                "Ada Lovelace",
                "name `Lovel` is longer",
                "name `(personal)` is longer",
            ),
            // In parts.
            ("Ada Lovelace", "Lovelace, Ada: taken", "(personal): taken"),
            (
                "Ada\nLovelace",
                "name \"Ada\\nLovelace\"",
                "name \"(personal)\"",
            ),
            (
                quote,
                &format!("name {debug} is no name"),
                "name \"(personal)\" is no name",
            ),
            (quote, &twice, "\"name \\\"(personal)\\\"\""),
            ("L\u{f6}we", "name L\\u{f6}we", "name (personal)"),
            ("L\u{f6}we", "name L\\u00f6we", "name (personal)"),
            // Not a word, or in a script without spaces.
            (
                "\u{2605}",
                "name \u{2605} has no letter",
                "name (personal) has no letter",
            ),
            (
                "\u{674e}\u{5c0f}",
                "\u{540d}\u{674e}\u{5c0f}\u{957f}",
                "\u{540d}(personal)\u{957f}",
            ),
            (
                "36",
                "age 36 is not in 3..=20",
                "age (personal) is not in 3..=20",
            ),
        ] {
            let found = values(&[value]).mask(text);
            assert_eq!(found.as_deref(), Some(masked), "{value:?} in {text:?}");
        }
    }

    #[test]
    fn a_value_that_is_a_part_of_another_word_leaves_that_alone() {
        for (value, text, masked) in [
            (
                "long",
                "name `long` is longer than 3",
                "name `(personal)` is longer than 3",
            ),
            (
                "art",
                "the start of part art",
                "the start of part (personal)",
            ),
            (
                "a",
                "name `a` has no vowel mark",
                "name `(personal)` has no vowel mark",
            ),
            ("1", "row 1 of 12", "row (personal) of 12"),
        ] {
            assert_eq!(values(&[value]).mask(text).as_deref(), Some(masked));
        }
        for (value, text) in [
            ("a", "name is taken"),
            ("long", "longer"),
            (" ", "a b"),
            ("", "x"),
        ] {
            assert_eq!(values(&[value]).mask(text), None, "{value:?} in {text:?}");
        }
    }

    /// Otherwise what is left out of `is not ● word` gives away that the name is `a`.
    #[test]
    fn what_stands_between_two_masks_is_masked() {
        let masked = values(&["a"]).mask("name `a` is not a word");
        assert_eq!(masked.as_deref(), Some("name `(personal) word"));
    }

    #[test]
    fn a_text_is_masked_as_a_whole_if_the_values_are_not_known() {
        let masked = Values::unknown().mask("two is too many");
        assert_eq!(masked.as_deref(), Some(MASK));
    }
}
