//! A subject with wildcards, and the subjects of one stream that it matches.

use anyhow::Context as _;
use async_nats::jetstream::stream::Config;
use futures_util::TryStreamExt as _;
use headwater::stream;

use crate::nats::Nats;

/// Why a pattern is not valid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Wrong {
    #[error(
        "`{0}` is not a valid subject: write tokens separated by dots, `*` for any token, `>` for all that follow, such as orders.v1.placed or *.v1.*.17"
    )]
    Malformed(String),
    #[error("the key {key} is in partition {partition}, which {pattern} does not match")]
    OtherPartition {
        pattern: String,
        key: String,
        partition: u64,
    },
}

/// A subject with wildcards. Fewer tokens than an event's subject match all that follow.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<String>);

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let tokens: Vec<String> = text.split('.').map(str::to_owned).collect();
        let last = tokens.len() - 1;
        let is_token = |(at, token): (usize, &String)| match token.as_str() {
            "" => false,
            ">" => at == last,
            "*" => true,
            token => !token.contains(['*', '>']) && !token.contains(char::is_whitespace),
        };
        if tokens.iter().enumerate().all(is_token) {
            Ok(Self(tokens))
        } else {
            Err(Wrong::Malformed(text.to_owned()))
        }
    }

    /// Restricts the pattern to the partition of `key`.
    pub fn with_key(&self, key: &str) -> Result<Self, Wrong> {
        let partition = headwater::partition(key);
        let mut tokens = self.0.clone();
        if tokens.last().is_some_and(|last| last == ">") {
            tokens.pop();
        }
        let given = tokens
            .get(3)
            .is_none_or(|given| given == "*" || *given == partition.to_string());
        if tokens.len() > 4 || !given {
            return Err(Wrong::OtherPartition {
                pattern: self.0.join("."),
                key: key.to_owned(),
                partition,
            });
        }
        tokens.resize(3, "*".to_owned());
        tokens.push(partition.to_string());
        Ok(Self(tokens))
    }

    /// The source that the pattern names; `None` for all.
    pub fn source(&self) -> Option<&str> {
        let first = self.0.first().map(String::as_str);
        first.filter(|first| !matches!(*first, "*" | ">"))
    }

    /// The filters for the stream of `source`; empty if the pattern names another source.
    pub fn of(&self, source: &str) -> Vec<String> {
        if self.source().is_some_and(|own| own != source) {
            return Vec::new();
        }
        let rest = self.0.get(1..).unwrap_or_default().join(".");
        match self.0.len() {
            1 => vec![format!("{source}.>")],
            // An event published by hand may have no partition.
            2 | 3 if !rest.ends_with('>') => {
                vec![format!("{source}.{rest}"), format!("{source}.{rest}.>")]
            }
            _ => vec![format!("{source}.{rest}")],
        }
    }

    /// The event streams that the pattern matches, each with its source.
    pub async fn streams(&self, nats: &Nats) -> anyhow::Result<Vec<(String, String)>> {
        if let Some(source) = self.source() {
            let name = stream::name(source);
            let found = nats.stream(&name).await?;
            found.with_context(|| {
                format!("the stream {name} does not exist; `nats stream ls` lists the streams")
            })?;
            return Ok(vec![(name, source.to_owned())]);
        }
        let all = nats.jetstream.streams();
        let all: Vec<_> = all.try_collect().await.context("list the streams")?;
        let own = all.into_iter().map(|stream| stream.config);
        let own = own.filter_map(|config| Some((config.name.clone(), source(&config)?)));
        let mut own: Vec<(String, String)> = own.collect();
        own.sort();
        anyhow::ensure!(!own.is_empty(), "no source has an event stream here yet");
        Ok(own)
    }
}

/// The source whose events a stream holds, if any. The stream's metadata names it;
/// `nats stream edit --metadata` replaces the metadata, so name and subjects are also checked.
fn source(config: &Config) -> Option<String> {
    let label = |name| config.metadata.get(name);
    if label("headwater.kind").is_some_and(|kind| kind == "events") {
        return label("headwater.source").cloned();
    }
    let source = config.subjects.first()?.strip_suffix(".>")?;
    (stream::name(source) == config.name).then(|| source.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str, source: &str) -> Vec<String> {
        Pattern::parse(pattern).expect(pattern).of(source)
    }

    #[test]
    fn a_pattern_stands_for_subjects_of_a_stream() {
        assert_eq!(of(">", "orders"), ["orders.>"]);
        assert_eq!(of("orders", "orders"), ["orders.>"]);
        assert_eq!(of("orders.>", "orders"), ["orders.>"]);
        assert_eq!(of("orders.v1.*.17", "orders"), ["orders.v1.*.17"]);
        assert_eq!(of("*.v1.*.17", "orders"), ["orders.v1.*.17"]);
        let kind = ["orders.v1.placed", "orders.v1.placed.>"];
        assert_eq!(of("orders.v1.placed", "orders"), kind);
        assert!(of("orders.>", "users").is_empty());
    }

    #[test]
    fn a_key_leaves_one_partition() {
        let partition = headwater::partition("u1");
        let with_key = |pattern: &str| {
            let pattern = Pattern::parse(pattern).expect(pattern);
            pattern.with_key("u1").map(|pattern| pattern.of("orders"))
        };
        let all = Ok(vec![format!("orders.*.*.{partition}")]);
        assert_eq!(with_key(">"), all);
        assert_eq!(with_key("orders"), all);
        assert_eq!(with_key("orders.>"), all);
        let kind = Ok(vec![format!("orders.v1.placed.{partition}")]);
        assert_eq!(with_key("orders.v1.placed"), kind);
        assert_eq!(with_key(&format!("orders.v1.placed.{partition}")), kind);
        let other = (partition + 1) % headwater::PARTITIONS;
        assert!(with_key(&format!("orders.v1.placed.{other}")).is_err());
        assert!(with_key("orders.v1.placed.1.2").is_err());
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for wrong in [
            "",
            "orders..placed",
            ".",
            "orders.",
            "a.>.b",
            "a*",
            "a b",
            "a.b>",
        ] {
            let refused = Wrong::Malformed(wrong.to_owned());
            assert_eq!(Pattern::parse(wrong).map(|_| ()), Err(refused));
        }
    }
}
