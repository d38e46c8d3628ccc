//! The parameters of a query or a form.

use url::form_urlencoded::{Serializer, parse};

/// Names and values in their order. A name may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(parse(text).into_owned().collect())
    }

    pub(crate) fn of(name: &str, value: &str) -> Self {
        Self(vec![(name.to_owned(), value.to_owned())])
    }

    /// The same with further values of a name.
    pub(crate) fn and(mut self, name: &str, values: Vec<String>) -> Self {
        let values = values.into_iter();
        self.0.extend(values.map(|value| (name.to_owned(), value)));
        self
    }

    /// The first value of a name without blanks around it; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        let first = self.0.iter().find(|(its, _)| its == name);
        first.map_or("", |(_, value)| value.trim())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.0.iter().filter(move |(its, _)| its == name);
        own.map(|(_, value)| &**value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same with one value of `name`; an empty value removes it.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut all = self.0.clone();
        all.retain(|(its, _)| its != name);
        if !value.is_empty() {
            all.push((name.to_owned(), value.to_owned()));
        }
        Self(all)
    }

    /// A link to `path` with these parameters.
    pub(crate) fn link(&self, path: &str) -> String {
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        let query = Serializer::new(String::new()).extend_pairs(set).finish();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        }
    }
}

/// A link to `path` with `params`.
pub(crate) fn link(path: &str, params: &[(&str, &str)]) -> String {
    let all = params.iter();
    let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Params(all.collect()).link(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_link_and_a_link_is_a_filter() {
        let params = Params::parse(b"source=orders&key=a%26b+c&empty=&pick=1&pick=2");
        assert_eq!((params.get("key"), params.get("none")), ("a&b c", ""));
        assert_eq!(params.all("pick").collect::<Vec<_>>(), ["1", "2"]);
        let link = params
            .with("source", "")
            .with("text", "\"<é>")
            .link("/events");
        let expected = "/events?key=a%26b+c&pick=1&pick=2&text=%22%3C%C3%A9%3E";
        assert_eq!(link, expected);
        assert_eq!(Params::default().link("/events"), "/events");
    }
}
