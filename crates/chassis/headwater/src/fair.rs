//! Turns for clients: work that waits for a scarce thread is taken from one address after the
//! other, so that who asks for much delays nobody else by more than one piece of it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

tokio::task_local! {
    static CLIENT: IpAddr;
}

/// `work` that a request of the client at `address` causes.
pub(crate) fn on_behalf_of<F: Future>(address: IpAddr, work: F) -> impl Future<Output = F::Output> {
    CLIENT.scope(address, work)
}

/// The client whose request is being worked on; the unspecified address where it is none's.
pub(crate) fn client() -> IpAddr {
    CLIENT
        .try_with(|address| *address)
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// What waits, by the address that it came from. The addresses take turns.
#[derive(Debug)]
pub struct Queue<T> {
    turns: VecDeque<IpAddr>,
    /// None is empty.
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

    /// Adds an item. Without room, returns the one that has to go: the newest of the address that
    /// has the most, which may be the new one itself.
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

    /// Drops the items that nobody waits for any more.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        for items in self.items.values_mut() {
            items.retain(&is_wanted);
        }
        self.tidy();
    }

    /// After items were taken out of the middle.
    fn tidy(&mut self) {
        self.items.retain(|_, items| !items.is_empty());
        self.turns
            .retain(|address| self.items.contains_key(address));
        self.waiting = self.items.values().map(VecDeque::len).sum();
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

/// Work that is done on the runtime's threads, a piece at a time: between two points where it
/// waits for something. As many pieces as there are places are done at once; for the next place,
/// addresses take turns. Cheap to clone.
///
/// Left to itself, the runtime does what has become ready in that order: a thousand requests of
/// one client that come at once delay the next one of every other.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    free: usize,
    /// Of work that is gone nothing is left here.
    waiting: Queue<Weak<Ticket>>,
}

/// Work that waits for a place.
#[derive(Debug)]
struct Ticket {
    waker: Waker,
    /// Whether it has a place. Changed under the lock of [`Places`] only.
    is_called: AtomicBool,
}

impl Turns {
    /// A place for each of the runtime's threads but one, which stays free to find out what has
    /// become ready.
    pub(crate) fn of_runtime() -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        Self::new(threads.saturating_sub(1).max(1))
    }

    fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            free: places,
            waiting: Queue::new(usize::MAX),
        })))
    }

    /// `work` of the client at `address`, done in its turns.
    pub(crate) fn take<F: Future>(&self, address: IpAddr, work: F) -> InTurn<F> {
        InTurn {
            work: Box::pin(work),
            address,
            turns: self.clone(),
            ticket: None,
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, given to the next when dropped.
struct Place<'a>(&'a Turns);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places();
        let called =
            std::iter::from_fn(|| places.waiting.pop()).find_map(|ticket| ticket.upgrade());
        match &called {
            Some(ticket) => ticket.is_called.store(true, Ordering::Relaxed),
            None => places.free += 1,
        }
        drop(places);
        if let Some(ticket) = called {
            ticket.waker.wake_by_ref();
        }
    }
}

/// See [`Turns::take`].
pub(crate) struct InTurn<F> {
    work: Pin<Box<F>>,
    address: IpAddr,
    turns: Turns,
    ticket: Option<Arc<Ticket>>,
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let mut places = this.turns.places();
        match &this.ticket {
            Some(ticket) if ticket.is_called.load(Ordering::Relaxed) => this.ticket = None,
            // Woken for something else.
            Some(_) => return Poll::Pending,
            None if places.free > 0 => places.free -= 1,
            None => {
                let ticket = Arc::new(Ticket {
                    waker: context.waker().clone(),
                    is_called: AtomicBool::new(false),
                });
                places.waiting.push(this.address, Arc::downgrade(&ticket));
                this.ticket = Some(ticket);
                return Poll::Pending;
            }
        }
        drop(places);
        let _place = Place(&this.turns);
        this.work.as_mut().poll(context)
    }
}

impl<F> Drop for InTurn<F> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let places = self.turns.places();
        let is_called = ticket.is_called.load(Ordering::Relaxed);
        // Before the next is called: it must not be this one.
        drop(ticket);
        drop(places);
        if is_called {
            drop(Place(&self.turns));
        }
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
        assert_eq!(queue.push(address(4), 40), Some(40), "nobody has more");
        assert_eq!(queue.waiting(), 3);
        assert_eq!(drain(queue), [10, 20, 30]);
    }

    fn poll(work: &mut (impl Future + Unpin)) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(work).poll(&mut context).is_ready()
    }

    #[test]
    fn for_a_place_addresses_take_turns_and_who_is_gone_is_passed_over() {
        let turns = Turns::new(1);
        let done = Mutex::new(Vec::new());
        let note = |(number, from)| {
            let done = &done;
            let work = async move { done.lock().unwrap().push(number) };
            turns.take(address(from), work)
        };
        // Somebody has the place.
        turns.places().free = 0;
        let mut waiting: VecDeque<_> = [(10, 1), (11, 1), (12, 1), (20, 2)].map(note).into();
        assert!(!waiting.iter_mut().any(poll), "there was no place");
        // Woken for something else, none waits twice.
        assert!(!waiting.iter_mut().any(poll));
        drop(waiting.remove(1));
        drop(Place(&turns));
        while !waiting.is_empty() {
            waiting.retain_mut(|work| !poll(work));
        }
        assert_eq!(*done.lock().unwrap(), [10, 20, 12]);
        assert_eq!(turns.places().free, 1);
    }

    #[test]
    fn who_goes_with_a_place_or_panics_gives_it_to_the_next() {
        let turns = Turns::new(1);
        turns.places().free = 0;
        let mut called = turns.take(address(1), async {});
        let mut next = turns.take(address(1), async {});
        assert!(!poll(&mut called) && !poll(&mut next));
        drop(Place(&turns));
        drop(called);
        assert!(poll(&mut next));
        let mut bad = turns.take(address(1), async { panic!("bad") });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut bad)));
        assert!(panicked.is_err());
        assert_eq!(turns.places().free, 1);
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
