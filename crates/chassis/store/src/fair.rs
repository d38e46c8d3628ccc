//! Turns for clients: work that waits for a scarce thread is taken from one address after the
//! other. So a client with many requests delays another one by at most one piece of work.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

tokio::task_local! {
    static CLIENT: IpAddr;
}

/// Runs `work` on behalf of the client at `address`.
pub fn on_behalf_of<F: Future>(address: IpAddr, work: F) -> impl Future<Output = F::Output> {
    CLIENT.scope(address, work)
}

/// The client whose request is being handled; the unspecified address if there is none.
pub fn client() -> IpAddr {
    CLIENT
        .try_with(|address| *address)
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Waiting items by the address that they came from. The addresses take turns.
#[derive(Debug)]
pub struct Queue<T> {
    turns: VecDeque<IpAddr>,
    /// No list is empty.
    items: HashMap<IpAddr, VecDeque<T>>,
    waiting: usize,
    max: usize,
}

impl<T> Queue<T> {
    /// A queue with room for `max` items of all addresses together.
    pub fn new(max: usize) -> Self {
        Self {
            turns: VecDeque::new(),
            items: HashMap::new(),
            waiting: 0,
            max,
        }
    }

    /// Adds an item. If the queue is full, removes and returns the newest item of the address that
    /// has the most, which may be the new item.
    pub fn push(&mut self, from: IpAddr, item: T) -> Option<T> {
        let own = self.items.entry(from).or_default();
        if own.is_empty() {
            self.turns.push_back(from);
        }
        own.push_back(item);
        self.waiting += 1;
        if self.waiting <= self.max {
            return None;
        }
        let count = |(address, items): &(&IpAddr, &VecDeque<T>)| (items.len(), **address == from);
        let most = *self.items.iter().max_by_key(count)?.0;
        let displaced = self.items.get_mut(&most)?.pop_back();
        self.tidy();
        displaced
    }

    /// The oldest item of the address whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let address = self.turns.pop_front()?;
        let items = self.items.get_mut(&address)?;
        let item = items.pop_front();
        self.waiting -= 1;
        if items.is_empty() {
            self.items.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        item
    }

    /// Drops the items that are no longer wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        for items in self.items.values_mut() {
            items.retain(&is_wanted);
        }
        self.tidy();
    }

    /// Restores the invariants after items were removed from the middle.
    fn tidy(&mut self) {
        self.items.retain(|_, items| !items.is_empty());
        self.turns
            .retain(|address| self.items.contains_key(address));
        self.waiting = self.items.values().map(VecDeque::len).sum();
    }

    /// The number of waiting items.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn drain(mut queue: Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = Queue::new(8);
        for item in [10, 11, 12] {
            assert_eq!(queue.push(address(1), item), None);
        }
        for item in [20, 21] {
            assert_eq!(queue.push(address(2), item), None);
        }
        assert_eq!(queue.push(address(3), 30), None);
        assert_eq!(drain(queue), [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn a_full_queue_drops_the_newest_of_the_address_that_has_the_most() {
        let mut queue = Queue::new(3);
        for item in [10, 11, 12] {
            assert_eq!(queue.push(address(1), item), None);
        }
        assert_eq!(queue.push(address(1), 13), Some(13), "its own");
        assert_eq!(queue.push(address(2), 20), Some(12), "the greedy one's");
        assert_eq!(queue.push(address(2), 21), Some(21), "as many as the other");
        assert_eq!(queue.push(address(3), 30), Some(11));
        assert_eq!(queue.push(address(4), 40), Some(40), "no address has more");
        assert_eq!(queue.waiting(), 3);
        assert_eq!(drain(queue), [10, 20, 30]);
    }

    #[tokio::test]
    async fn work_is_on_behalf_of_the_client_that_asked() {
        assert_eq!(client(), IpAddr::from([0, 0, 0, 0]));
        let asked = on_behalf_of(address(7), async { client() });
        assert_eq!(asked.await, address(7));
    }

    #[test]
    fn what_nobody_waits_for_takes_no_room() {
        let mut queue = Queue::new(2);
        assert_eq!(queue.push(address(1), 10), None);
        assert_eq!(queue.push(address(2), 20), None);
        queue.retain(|item| *item != 10);
        assert_eq!(queue.push(address(3), 30), None);
        assert_eq!(drain(queue), [20, 30]);
    }
}
