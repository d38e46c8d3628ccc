//! The letters that a `discard --all` would discard.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use headwater::operator::Letter;
use terminal::output::printable;

/// How many kinds are counted separately; letters of further kinds are counted together.
const KINDS_MAX: usize = 1000;

/// How many kinds are shown, those with the most letters first.
const KINDS_SHOWN: usize = 20;

/// The letters to discard: their ids, and the number of each kind.
#[derive(Debug, Default)]
pub struct Plan {
    ids: BTreeMap<String, Vec<u64>>,
    /// The count by service, source, key and reason.
    kinds: BTreeMap<String, u64>,
    others: u64,
}

impl Plan {
    pub fn add(&mut self, service: &str, letter: &Letter) {
        self.add_id(service, letter.id);
        let (source, key, reason) = (&letter.source, &letter.lane, &letter.reason);
        let kind = format!("{service} from {source} ({key}): {reason}");
        if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(&kind) {
            *self.kinds.entry(kind).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// Adds a letter that is not counted by its kind.
    pub fn add_id(&mut self, service: &str, id: u64) {
        let ids = self.ids.entry(service.to_owned()).or_default();
        ids.push(id);
    }

    pub fn total(&self) -> u64 {
        self.ids.values().map(|ids| ids.len() as u64).sum()
    }

    /// The ids by service, the oldest first.
    pub(crate) fn into_ids(self) -> BTreeMap<String, Vec<u64>> {
        self.ids
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{} dead letters to discard:", self.total())?;
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let (shown, rest) = kinds.split_at(kinds.len().min(KINDS_SHOWN));
        for (kind, count) in shown {
            write!(f, "\n  {count} of {}", printable(kind))?;
        }
        let others = rest.iter().map(|(_, count)| **count).sum::<u64>() + self.others;
        if others > 0 {
            write!(f, "\n  {others} with other keys or reasons")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: u64, key: &str) -> Letter {
        let letter = serde_json::json!({
            "id": id, "projection": "p", "source": "orders", "lane": key, "waiting": false,
            "epoch": null, "position": null, "sequence": id, "subject": "orders.v1.placed.1",
            "reason": "no\u{1b}sense", "recorded_at": 0, "bytes": 1,
        });
        serde_json::from_value(letter).expect("a letter")
    }

    #[test]
    fn kinds_are_counted_and_many_of_them_take_bounded_room() {
        let mut plan = Plan::default();
        for id in 0..5_000 {
            plan.add("house", &letter(id, &format!("event {id}")));
        }
        for id in 5_000..5_010 {
            plan.add("house", &letter(id, "event 7"));
        }
        assert_eq!((plan.total(), plan.kinds.len()), (5_010, KINDS_MAX));
        let text = plan.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), KINDS_SHOWN + 2);
        let most = "  11 of house from orders (event 7): no\\u{1b}sense";
        assert_eq!(lines[1], most);
        assert_eq!(lines[21], "  4980 with other keys or reasons");
        let ids = plan.into_ids().remove("house").expect("ids");
        assert!(ids.is_sorted());
    }
}
