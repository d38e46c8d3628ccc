//! Shares the runtime's threads between clients by their addresses.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use headwater_store::fair::Queue;

/// Runs work on the runtime's threads piece by piece; a piece lasts until the work waits for
/// something. As many pieces run at once as there are slots, and addresses take turns for the next
/// slot. Cheap to clone.
///
/// The runtime alone runs ready work in order: a thousand simultaneous requests of one client delay
/// the next request of every other client.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<Slots>>);

#[derive(Debug)]
struct Slots {
    free: usize,
    /// Dropped work leaves nothing here.
    waiting: Queue<Weak<Ticket>>,
}

/// Work that waits for a slot.
#[derive(Debug)]
struct Ticket {
    waker: Waker,
    /// Whether it has a slot. Changed under the lock of [`Slots`] only.
    is_called: AtomicBool,
}

impl Turns {
    /// One slot per thread of the runtime except one, which stays free to detect ready work.
    pub(crate) fn of_runtime() -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        Self::new(threads.saturating_sub(1).max(1))
    }

    fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(Slots {
            free: slots,
            waiting: Queue::new(usize::MAX),
        })))
    }

    /// `work` of the client at `address`, run in turns.
    pub(crate) fn take<F: Future>(&self, address: IpAddr, work: F) -> InTurn<F> {
        InTurn {
            work: Box::pin(work),
            address,
            turns: self.clone(),
            ticket: None,
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot, given to the next when dropped.
struct Slot<'a>(&'a Turns);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut slots = self.0.slots();
        let called = std::iter::from_fn(|| slots.waiting.pop()).find_map(|ticket| ticket.upgrade());
        match &called {
            Some(ticket) => ticket.is_called.store(true, Ordering::Relaxed),
            None => slots.free += 1,
        }
        drop(slots);
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
        let mut slots = this.turns.slots();
        match &this.ticket {
            Some(ticket) if ticket.is_called.load(Ordering::Relaxed) => this.ticket = None,
            // Woken for another reason.
            Some(_) => return Poll::Pending,
            None if slots.free > 0 => slots.free -= 1,
            None => {
                let ticket = Arc::new(Ticket {
                    waker: context.waker().clone(),
                    is_called: AtomicBool::new(false),
                });
                slots.waiting.push(this.address, Arc::downgrade(&ticket));
                this.ticket = Some(ticket);
                return Poll::Pending;
            }
        }
        drop(slots);
        let _place = Slot(&this.turns);
        this.work.as_mut().poll(context)
    }
}

impl<F> Drop for InTurn<F> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let slots = self.turns.slots();
        let is_called = ticket.is_called.load(Ordering::Relaxed);
        // Drop it before calling the next, which must not be this one.
        drop(ticket);
        drop(slots);
        if is_called {
            drop(Slot(&self.turns));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
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
        // The slot is taken.
        turns.slots().free = 0;
        let mut waiting: VecDeque<_> = [(10, 1), (11, 1), (12, 1), (20, 2)].map(note).into();
        assert!(!waiting.iter_mut().any(poll), "there was no slot");
        // Woken for another reason, none waits twice.
        assert!(!waiting.iter_mut().any(poll));
        drop(waiting.remove(1));
        drop(Slot(&turns));
        while !waiting.is_empty() {
            waiting.retain_mut(|work| !poll(work));
        }
        assert_eq!(*done.lock().unwrap(), [10, 20, 12]);
        assert_eq!(turns.slots().free, 1);
    }

    #[test]
    fn who_goes_with_a_place_or_panics_gives_it_to_the_next() {
        let turns = Turns::new(1);
        turns.slots().free = 0;
        let mut called = turns.take(address(1), async {});
        let mut next = turns.take(address(1), async {});
        assert!(!poll(&mut called) && !poll(&mut next));
        drop(Slot(&turns));
        drop(called);
        assert!(poll(&mut next));
        let mut bad = turns.take(address(1), async { panic!("bad") });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut bad)));
        assert!(panicked.is_err());
        assert_eq!(turns.slots().free, 1);
    }
}
