//! Wakes readers when what they show has changed, for pages and streams that follow. A projection
//! wakes those who follow the keys of the events that it has applied.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Everybody who follows some tables. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Followers(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    wakes: HashMap<u64, Arc<Notify>>,
    /// The hash of each key with the number of a follower: a few bytes for each. Two keys with the
    /// same hash only wake a follower in vain.
    keys: BTreeSet<(u64, u64)>,
    hasher: RandomState,
}

/// Wakes a reader when something with one of its keys has changed.
#[derive(Debug)]
pub struct Follower {
    followers: Followers,
    number: u64,
    wake: Arc<Notify>,
    /// The hashes of its keys.
    keys: BTreeSet<u64>,
}

impl Followers {
    /// A follower of nothing yet.
    pub fn follow(&self) -> Follower {
        let wake = Arc::new(Notify::new());
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.wakes.insert(number, Arc::clone(&wake));
        Follower {
            followers: self.clone(),
            number,
            wake,
            keys: BTreeSet::new(),
        }
    }

    /// Wakes those who follow one of `keys`, of changes that are committed; everybody if one of them
    /// is `None`. The keys are read only if there are followers.
    pub fn wake(&self, keys: impl Iterator<Item = Option<String>>) {
        if self.open().wakes.is_empty() {
            return;
        }
        let keys: Option<Vec<String>> = keys.collect();
        let Some(keys) = keys else {
            return self.wake_all();
        };
        let open = self.open();
        for key in keys {
            let hash = open.hasher.hash_one(&*key);
            for (_, number) in open.keys.range((hash, 0)..=(hash, u64::MAX)) {
                open.wakes[number].notify_one();
            }
        }
    }

    /// Wakes everybody: the tables are others now.
    pub fn wake_all(&self) {
        self.open()
            .wakes
            .values()
            .for_each(|wake| wake.notify_one());
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Follows `keys` and no others. Returns whether some of them are new: what they name may have
    /// changed just before, so read it again.
    pub fn set(&mut self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let mut open = self.followers.open();
        let keys = keys
            .into_iter()
            .map(|key| open.hasher.hash_one(key.as_ref()));
        let keys: BTreeSet<u64> = keys.collect();
        for key in self.keys.difference(&keys) {
            open.keys.remove(&(*key, self.number));
        }
        let mut are_some_new = false;
        for key in keys.difference(&self.keys) {
            are_some_new |= open.keys.insert((*key, self.number));
        }
        self.keys = keys;
        are_some_new
    }

    /// Waits until something with one of the keys has changed since the last call; any number of
    /// changes count once. A read that begins afterwards sees all of them.
    ///
    /// Also returns when the tables were replaced, or dead letters retried.
    pub async fn changed(&mut self) {
        self.wake.notified().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut open = self.followers.open();
        open.wakes.remove(&self.number);
        for key in &self.keys {
            open.keys.remove(&(*key, self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// An empty key is none.
    fn wake(followers: &Followers, keys: &[&str]) {
        let key = |key: &&str| Some((*key).to_owned()).filter(|key| !key.is_empty());
        followers.wake(keys.iter().map(key));
    }

    fn has_changed(follower: &mut Follower) -> bool {
        let changed = std::pin::pin!(follower.changed());
        changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_follower_wakes_once_for_any_number_of_changes_of_its_keys() {
        let followers = Followers::default();
        let (mut hall, mut both) = (followers.follow(), followers.follow());
        assert!(hall.set(["hall"]));
        assert!(both.set(["hall", "attic"]));
        wake(&followers, &["attic", "cellar", "attic"]);
        assert_eq!([&mut hall, &mut both].map(has_changed), [false, true]);
        assert!(!has_changed(&mut both), "twice for one batch");
        wake(&followers, &["hall"]);
        assert_eq!([&mut hall, &mut both].map(has_changed), [true, true]);
        wake(&followers, &["cellar", ""]);
        assert_eq!([&mut hall, &mut both].map(has_changed), [true, true]);
        followers.wake_all();
        assert!(has_changed(&mut hall));
    }

    #[test]
    fn a_follower_that_changes_its_keys_or_is_dropped_leaves_nothing() {
        let followers = Followers::default();
        let mut follower = followers.follow();
        assert!(follower.set(["hall", "attic"]));
        assert!(!follower.set(["attic"]), "nothing is new");
        wake(&followers, &["hall"]);
        assert!(!has_changed(&mut follower));
        assert_eq!(followers.open().keys.len(), 1);
        drop(follower);
        assert!(followers.open().keys.is_empty() && followers.open().wakes.is_empty());
    }
}
