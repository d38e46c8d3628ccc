//! Compares the output of a command with the page. `…` stands for anything; times, random ids and
//! measured values always agree.

use serde_json::Value;

/// Returns the difference.
pub(super) fn agrees(expected: &str, printed: &str) -> Result<(), String> {
    if let Some(expected) = json(expected) {
        let from = printed.find('{').ok_or("there is no object")?;
        let mut values = serde_json::Deserializer::from_str(&printed[from..]).into_iter();
        let printed: Value = match values.next() {
            Some(Ok(value)) => value,
            other => return Err(format!("there is no object: {other:?}")),
        };
        return same(&expected, &printed, "");
    }
    let mut printed_lines = printed.lines();
    for line in expected.lines().filter(|line| *line != "…") {
        if !printed_lines.any(|printed| is_like(line, printed)) {
            return Err(format!("`{line}` is not there"));
        }
    }
    Ok(())
}

/// The shown JSON without its omissions.
fn json(shown: &str) -> Option<Value> {
    if !shown.starts_with('{') {
        return None;
    }
    let mut whole = String::new();
    let (mut is_text, mut is_escaped, mut is_comma_left) = (false, false, false);
    for c in shown.chars() {
        match c {
            '…' if !is_text => {
                let kept = whole.trim_end();
                let before = kept.strip_suffix(',');
                // Without a comma before it, the one after it goes.
                is_comma_left = before.is_none();
                let kept = before.unwrap_or(kept).len();
                whole.truncate(kept);
            }
            ',' if is_comma_left => is_comma_left = false,
            c => {
                if !c.is_whitespace() {
                    is_comma_left = false;
                }
                is_text ^= c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                whole.push(c);
            }
        }
    }
    let value = serde_json::from_str(&whole);
    Some(value.unwrap_or_else(|error| panic!("{error}: {whole}")))
}

fn same(expected: &Value, printed: &Value, place: &str) -> Result<(), String> {
    let differs = || Err(format!("{place} is {printed}, not {expected}"));
    match (expected, printed) {
        (Value::Object(expected), Value::Object(printed)) => {
            expected.iter().try_for_each(|(name, expected)| {
                let place = format!("{place}.{name}");
                let printed = printed.get(name).ok_or(format!("there is no {place}"))?;
                same(expected, printed, &place)
            })
        }
        // In any order, because a service lists its endpoints in the order of a hash map.
        (Value::Array(expected), Value::Array(printed)) => {
            let mut rest: Vec<&Value> = printed.iter().collect();
            expected.iter().enumerate().try_for_each(|(nth, expected)| {
                let place = format!("{place}[{nth}]");
                let mut last = format!("there is no {place}");
                let found = rest.iter().position(|printed| {
                    let compared = same(expected, printed, &place);
                    compared.map_err(|why| last = why).is_ok()
                });
                rest.remove(found.ok_or(last)?);
                Ok(())
            })
        }
        (Value::String(one), Value::String(other)) if is_like(one, other) => Ok(()),
        (Value::Number(one), Value::Number(other)) if is_time(one) && is_time(other) => Ok(()),
        (one, other) if one == other => Ok(()),
        _ => differs(),
    }
}

/// Milliseconds since 1970.
fn is_time(number: &serde_json::Number) -> bool {
    number.as_u64() > Some(1_500_000_000_000)
}

fn is_like(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (masked(expected), masked(printed));
    let mut rest = printed.as_str();
    let parts: Vec<&str> = expected.split('…').collect();
    for (nth, part) in parts.iter().enumerate() {
        match rest.find(part) {
            Some(at) if nth > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || expected.ends_with('…')
}

/// A line with `#` for times and random ids, and with single blanks.
fn masked(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut masked = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end.max(c.len_utf8()));
        rest = tail;
        let varies = is_moment(word) || is_random(word);
        match word {
            " " if masked.ends_with(' ') => {}
            _ if varies => masked.push('#'),
            word => masked.push_str(word),
        }
    }
    masked
}

/// `2026-11-25T23:59:53.984Z`
fn is_moment(word: &str) -> bool {
    let bytes = word.as_bytes();
    word.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && word.ends_with('Z')
}

/// An epoch, or the random id of a connection or a service.
fn is_random(word: &str) -> bool {
    let is_hex = word.len() == 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    let has = |of: fn(&char) -> bool| word.chars().any(|c| of(&c));
    let is_mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    is_hex || word.len() == 22 && is_mixed && word.chars().all(|c| c.is_ascii_alphanumeric())
}

#[test]
fn what_differs_is_noticed_and_what_varies_is_not() {
    let shown = "2026-11-25T23:59:53.984Z  orders:13   {\"n\":1,…}";
    assert!(
        agrees(
            shown,
            "2027-01-01T00:00:00.001Z  orders:13 {\"n\":1,\"m\":2}"
        )
        .is_ok()
    );
    assert!(
        agrees(
            shown,
            "2027-01-01T00:00:00.001Z  orders:14 {\"n\":1,\"m\":2}"
        )
        .is_err()
    );
    let shown = "{\"a\": {\"b\": [1, …], …}, …,\n \"at\": 1795651224614}";
    assert!(
        agrees(
            shown,
            "said {\"a\": {\"b\": [0, 1, 2]}, \"x\": 1, \"at\": 1895651224614}"
        )
        .is_ok()
    );
    assert!(agrees(shown, "{\"a\": {\"b\": [0, 2]}, \"at\": 1895651224614}").is_err());
    assert!(agrees(shown, "{\"a\": {\"b\": [1]}, \"at\": 7}").is_err());
    assert!(agrees("{\"a\": 1}", "nothing").is_err());
    assert!(agrees("{\"a\": [1, 2]}", "{\"a\": [2, 3, 1]}").is_ok());
    assert!(agrees("{\"a\": [1, 1]}", "{\"a\": [1, 2]}").is_err());
    assert!(agrees("one\n…\ntwo", "one\nand\ntwo").is_ok());
    assert!(agrees("two\none", "one\ntwo").is_err());
}
