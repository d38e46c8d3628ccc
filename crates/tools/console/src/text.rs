//! Texts for pages.

/// The most characters of a text in a list.
const SHORT: usize = 400;

/// The beginning of a text.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A JSON string without its quotes, anything else as it is.
pub(crate) fn plain(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(SHORT + 1);
        assert_eq!(short(&long), "é".repeat(SHORT) + "…");
        assert_eq!(short("é"), "é");
    }

    #[test]
    fn text_is_shown_without_quotes() {
        assert_eq!(plain(r#""a \"b\" \u003c""#), "a \"b\" <");
        assert_eq!(plain(r#"{"a":1}"#), r#"{"a":1}"#);
    }
}
