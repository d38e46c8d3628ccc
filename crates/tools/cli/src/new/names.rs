//! The names of a new service, in each of their forms.

/// The names that replace those of the template.
#[derive(Debug)]
pub(super) struct Names {
    /// `gift_cards`: the service, the source of its events, the crate.
    pub(super) service: String,
    /// `gift_card`: what it is about.
    entity: String,
}

/// Names of the template, of users and accounts of the broker, of modules of a service, and of
/// crates that a service uses.
const TAKEN: [&str; 22] = [
    "admin",
    "alloc",
    "axum",
    "broker",
    "bus",
    "core",
    "events",
    "headwater",
    "http",
    "inquiry",
    "lib",
    "main",
    "nats",
    "operator",
    "prost",
    "serde",
    "std",
    "store",
    "sys",
    "test",
    "viewer",
    "written",
];

const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "union", "unsafe", "unsized", "use", "virtual", "where", "while",
];

/// SQL keywords that cannot be the name of a table.
const SQL: [&str; 24] = [
    "add",
    "all",
    "alter",
    "case",
    "check",
    "column",
    "commit",
    "create",
    "default",
    "delete",
    "group",
    "having",
    "index",
    "insert",
    "join",
    "limit",
    "order",
    "references",
    "select",
    "set",
    "table",
    "transaction",
    "update",
    "value",
];

/// The most letters of a name: the system's users are called `headwater-NAME`, in at most 31.
const LETTERS_MAX: usize = 21;

impl Names {
    /// # Errors
    /// Why `name` cannot be used, and what to do.
    pub(super) fn of(name: &str) -> Result<Self, String> {
        let service = name.replace('-', "_");
        let mut words = service.split('_');
        let is_word = |word: &str| {
            let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(rest)
        };
        if !words.all(is_word) {
            return Err(format!(
                "`{name}` is not a name of a service: write words of lower-case letters and digits, \
                 as in `reviews` or `gift_cards`"
            ));
        }
        if service.len() > LETTERS_MAX {
            return Err(format!(
                "`{name}` has {} letters: choose a name of at most {LETTERS_MAX}",
                service.len()
            ));
        }
        let entity = singular(&service);
        for word in [&service, &entity] {
            let lists: [&[&str]; 3] = [&TAKEN, &KEYWORDS, &SQL];
            if lists.iter().any(|list| list.contains(&&**word)) {
                return Err(format!(
                    "`{word}` has another meaning in Rust, SQL or Headwater: choose another name \
                     than `{name}`, such as `shop_{name}`"
                ));
            }
        }
        Ok(Self { service, entity })
    }

    /// `text` of the template with these names.
    pub(super) fn in_text(&self, text: &str) -> String {
        let forms = [
            ("example-reviews", self.service.clone()),
            ("example_reviews", self.service.clone()),
            ("REVIEWS", self.service.to_uppercase()),
            ("Reviews", pascal(&self.service)),
            ("reviews", self.service.clone()),
            ("Review", pascal(&self.entity)),
            ("review", self.entity.clone()),
        ];
        // Two steps, because a new name may contain one of the template's.
        let marked = forms
            .iter()
            .enumerate()
            .fold(text.to_owned(), |text, (n, (from, _))| {
                text.replace(from, &format!("\u{1}{n}\u{2}"))
            });
        forms.iter().enumerate().fold(marked, |text, (n, (_, to))| {
            text.replace(&format!("\u{1}{n}\u{2}"), to)
        })
    }

    pub(super) fn in_path(&self, path: &str) -> String {
        self.in_text(path)
    }
}

fn singular(name: &str) -> String {
    match name.strip_suffix("ies") {
        Some(stem) if !stem.is_empty() => format!("{stem}y"),
        _ => match name.strip_suffix('s') {
            Some(stem) if !stem.ends_with('s') && !stem.is_empty() => stem.to_owned(),
            _ => name.to_owned(),
        },
    }
}

fn pascal(name: &str) -> String {
    name.split('_').fold(String::new(), |text, word| {
        let (first, rest) = word.split_at(1);
        text + &first.to_uppercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_used_is_refused_with_what_to_do() {
        let refused = |name: &str, why: &str| {
            let error = Names::of(name).unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        };
        for name in [
            "Reviews",
            "gift cards",
            "1st",
            "a__b",
            "-a",
            "",
            "réviews",
            "../x",
            "a_",
        ] {
            refused(name, "is not a name of a service");
        }
        for name in ["types", "match", "https", "broker", "orders_", "sys"] {
            assert!(Names::of(name).is_err(), "{name}");
        }
        refused("types", "`type` has another meaning");
        refused("groups", "`group` has another meaning");
        refused("stores", "`store` has another meaning");
        refused("a_name_with_too_many_letters", "at most 21");
    }

    #[test]
    fn every_form_of_a_name_is_replaced() {
        let names = Names::of("gift-cards").unwrap();
        let text = "example-reviews Reviews ReviewWritten reviews review REVIEWS written";
        let expected =
            "gift_cards GiftCards GiftCardWritten gift_cards gift_card GIFT_CARDS written";
        assert_eq!(names.in_text(text), expected);
        assert_eq!(names.in_path("src/review.rs"), "src/gift_card.rs");
        let forms = |name: &str| Names::of(name).unwrap().entity;
        assert_eq!(
            [forms("categories"), forms("address"), forms("stock")],
            ["category", "address", "stock"]
        );
        // A name with one of the template's in it.
        assert_eq!(
            Names::of("previews").unwrap().in_text("review reviews"),
            "preview previews"
        );
    }
}
