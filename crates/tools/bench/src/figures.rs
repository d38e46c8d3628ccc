//! All figures. For a new one, add a module with a function that returns a [`Figure`], and an entry
//! here; its table appears wherever a document has its markers.

use futures_util::future::LocalBoxFuture;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::{
    abuse, bytes, follow, freshness, import, memory, orders, reads, rebuild, relay, scaling, styles,
};

/// A figure that can be measured.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// What is measured, in one line.
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    pub(crate) measure: for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, anyhow::Result<Figure>>,
}

/// What a figure is compared with.
#[derive(Debug)]
pub(crate) enum Limit {
    /// The same work without our part, or with what ours replaces, in the same run. There are
    /// targets.
    Measured(&'static str),
    /// No limit and no target, with the reason.
    None(&'static str),
}

/// The figure that the module of the same name measures.
macro_rules! entry {
    ($name:ident, $what:literal, $limit:expr) => {
        Entry {
            name: stringify!($name),
            what: $what,
            limit: $limit,
            measure: |bench| Box::pin($name::measure(bench)),
        }
    };
}

/// All figures, in the order in which documents and plot show them.
pub(crate) const ALL: &[Entry] = &[
    entry!(
        orders,
        "POST /orders, durable, 64 clients",
        Limit::Measured(
            "the same transaction on the writer thread, without HTTP; a commit for each order"
        )
    ),
    entry!(
        relay,
        "an outbox full of events moves to its stream",
        Limit::Measured(
            "a bare client that publishes the same bytes, in atomic batches and one at a time"
        )
    ),
    entry!(
        rebuild,
        "an empty read store is built from all events",
        Limit::Measured("a bare client that drains and decodes the same streams")
    ),
    entry!(
        reads,
        "what a user ordered, 10 and 100 products, over HTTP",
        Limit::Measured("a bare prepared join on a few connections, under the same HTTP server")
    ),
    entry!(
        styles,
        "composition, request-reply and replica on the same data and load",
        Limit::Measured("each other")
    ),
    entry!(
        freshness,
        "from an order's answer to where purchases shows it",
        Limit::Measured("a commit, an acknowledged publish and a commit, one after the other")
    ),
    entry!(
        bytes,
        "the read store's bytes for a product and for a user-product pair",
        Limit::Measured("the same tables with integer keys; bytes")
    ),
    entry!(
        scaling,
        "an answer and an event, as the read store grows ten and a hundred times",
        Limit::None("it is compared with itself, smaller")
    ),
    entry!(
        import,
        "a shop imported by `shop-import`",
        Limit::None(
            "one client machine that also runs the services cannot reach the services' own rates"
        )
    ),
    entry!(
        memory,
        "memory of each service, idle and under load",
        Limit::None("nothing else does the same, so there is nothing to divide by")
    ),
    entry!(
        follow,
        "1,000 pages that follow: their memory, and reads beside them",
        Limit::Measured("the same reads without pages that follow; 64 MiB")
    ),
    entry!(
        abuse,
        "honest requests while others attack, and the memory of the service",
        Limit::Measured("the same requests undisturbed; 128 MiB")
    ),
];

/// The figures of these names, or all if there are none.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Entry>> {
    for name in names {
        anyhow::ensure!(
            ALL.iter().any(|entry| entry.name == name),
            "there is no figure `{name}`; `bench list` lists the figures"
        );
    }
    let is_chosen = |entry: &&Entry| names.is_empty() || names.iter().any(|it| it == entry.name);
    Ok(ALL.iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_has_a_limit_or_says_why_not() {
        for entry in ALL {
            let (Limit::Measured(text) | Limit::None(text)) = &entry.limit;
            assert!(
                text.len() > 5,
                "{} has neither a limit nor a reason",
                entry.name
            );
        }
    }

    #[test]
    fn names_are_chosen_once_and_wrong_ones_are_refused() {
        let names: BTreeSet<_> = ALL.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        let one = chosen(&["reads".to_owned()]).unwrap();
        assert_eq!(one.len(), 1);
        assert!(chosen(&["raeds".to_owned()]).is_err());
    }
}
